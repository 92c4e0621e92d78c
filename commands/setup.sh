# Sourced by the other commands: enters the project's folder and its virtual environment .venv.
# Creates the environment and installs the given requirement files once; later calls take no time.
#   source commands/setup.sh requirements.txt [more.txt ...]
# PYTHON chooses the interpreter (3.11 or newer), VENV another folder for the environment. VENV=none
# installs nothing and takes the `python` at hand: for machines without a network, or conda.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv="${VENV:-.venv}"
[ "$venv" != none ] || return 0
if [ ! -x "$venv/bin/python" ]; then
    echo "creating $venv"
    "${PYTHON:-python3}" -m venv "$venv"
fi
wanted="$(cat "$@")"
stamp="$venv/installed-$(tr ' /' '__' <<< "$*")"
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    echo "installing $* into $venv (a few minutes, once)"
    requirements=()
    for file in "$@"; do requirements+=(-r "$file"); done
    "$venv/bin/python" -m pip install --disable-pip-version-check "${requirements[@]}"
    printf '%s' "$wanted" > "$stamp"
fi
PATH="$(cd "$venv/bin" && pwd):$PATH"
export PATH
