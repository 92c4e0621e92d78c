#!/usr/bin/env bash
# Measures everything on this machine and fills the tables of docs/benchmarks.md. The machine should be
# idle: minutes on two cores. The `python` is the one at hand; arguments go to every benchmark
# (e.g. --device cpu --out FOLDER). Results: benchmarks/results/*.json.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python -m benchmarks.train --subjects preset iql-flat sgiql-3-cubes --repeats 7 \
    --variants plain eager side-by-side autocast "$@"
# Seconds per update, and attention over 120 particles: fewer repetitions say enough.
python -m benchmarks.train --name train_dlp --subjects sgiql-dlp-1 sgiql-dlp-2 --variants eager \
    autocast --repeats 2 --warmup 1 "$@"
if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    python -m benchmarks.train --name train_cuda --device cuda --repeats 30 --warmup 10 \
        --variants eager autocast compiled tf32 graphs graph-of-8 "$@"
fi
python -m benchmarks.sample "$@"
python -m benchmarks.evaluate --repeats 3 "$@"
python -m benchmarks.collect "$@"
python -m benchmarks.render "$@"
python -m benchmarks.encode --repeats 3 "$@"
python -m benchmarks.tables
