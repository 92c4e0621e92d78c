"""Harm done to real processes and real files, and what is left of the work afterwards.

`python -m tests.faults` does all of it and writes docs/reliability.md; the tests do a small part.
"""
