#!/usr/bin/env bash
# Trains an image encoder of the paper: `bash commands/train_encoder.sh NAME [overrides, such as seed=1]`,
# without NAME the list. It prints the command, which can be copied, and after `accelerate launch ... -m`
# runs on several GPUs; experiments.yaml says what is in it. It needs the dataset of commands/collect.sh
# and writes output/encoders/EXPERIMENT_KIND_SEED, which is what rep_model_checkpoint takes. Stopped, it
# continues.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt >&2
exec python -m common.paper.experiments train_encoder "$@"
