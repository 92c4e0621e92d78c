#!/usr/bin/env bash
# Collects a dataset of the paper: `bash commands/collect.sh NAME [overrides]`, without NAME the list.
# It prints the command, which can be copied; experiments.yaml says what is in it. Stopped, it continues.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt >&2
exec python -m common.paper.experiments collect "$@"
