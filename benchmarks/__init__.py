"""Benchmarks: `python -m benchmarks.NAME`, one command each; `benchmarks/run_all.sh` runs all.

Each prints tables and writes them, with machine, versions, threads and configuration, to
`benchmarks/results/NAME.json`. `python -m benchmarks.tables` puts them into `docs/benchmarks.md`.
"""
