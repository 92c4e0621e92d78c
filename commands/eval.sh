#!/usr/bin/env bash
# Evaluates an agent that commands/train.sh trained: `bash commands/eval.sh NAME [overrides, such as
# seed=1, which is the agent's as well]`, without NAME the list; each name is one figure of the paper's
# tables, or ours beside them. It prints the command, which can be copied; experiments.yaml says what
# is in it. Results go to a new folder of output/eval.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt >&2
exec python -m common.paper.experiments eval "$@"
