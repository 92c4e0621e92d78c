#!/usr/bin/env bash
# Makes a table of the paper from nothing: `bash commands/reproduce.sh TABLE [SCALE] [key=value ...]`.
# TABLE: main, ablations, subgoals, generalization. SCALE: paper, laptop,
# laptop-numbers (generalization), smoke; see scales.yaml.
# Keys: experiments, agents, seeds, jobs, output_dir, data_dir, download; launcher=slurm. Stopped, it continues.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt
exec python -m common.paper.reproduce "$@"
