#!/usr/bin/env bash
# Sets up like quickstart.sh and runs all tests; arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt tests/requirements.txt

ruff check .
ruff format --check .
python -m pytest -n 2 "$@"  # two at once: most of the time goes into starting processes
