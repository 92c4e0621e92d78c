#!/usr/bin/env bash
# Trains an agent of the paper's tables, or ours beside them: `bash commands/train.sh NAME [overrides,
# such as seed=1]`, without NAME the list. It prints the command, which can be copied; experiments.yaml
# says what is in it. It needs the dataset of commands/collect.sh, or OGBench's, and writes
# output/train/EXPERIMENT_AGENT_SEED. Stopped, it continues. Several seeds, one after the other:
# `seed=0,1,2,3 -m`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt >&2
exec python -m common.paper.experiments train "$@"
