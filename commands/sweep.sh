#!/usr/bin/env bash
# Trains all agents of a table with several seeds: every name of train.sh that begins with the table's,
# `bash commands/sweep.sh ppp-state seed=0,1,2,3`, one run after the other; what fails is listed at the
# end. Without a table, the list. On a SLURM cluster, all at once, one job per run:
#   bash commands/sweep.sh ppp-state seed=0,1,2,3 hydra/launcher=submitit_slurm \
#       hydra.launcher.timeout_min=4320 hydra.launcher.gpus_per_node=1 hydra.launcher.partition=NAME
# Stopped, it continues. Output of jobs: output/multirun/TABLE/AGENT/.submitit/.
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
source "$here/setup.sh" requirements.txt >&2  # once, before several at a time would; enters the project

table="${1:-}"
if [ -z "$table" ]; then
    bash commands/train.sh | cut -d/ -f1 | awk '!seen[$0]++'
    exit
fi
shift
names="$(bash commands/train.sh | grep "^$table/" || true)"
if [ -z "$names" ]; then
    echo "error: there is no table $table; without arguments $0 lists them" >&2
    exit 2
fi

failed=() jobs=()
note() {  # agent $1 ended with $2; a signal ends them all
    [ "$2" -lt 128 ] || exit "$2"
    [ "$2" -eq 0 ] || failed+=("$1")
}
for name in $names; do
    command=(bash commands/train.sh "$name" "$@" -m "hydra.sweep.dir=\${output_dir}/multirun/$name")
    code=0
    case " $* " in
        *" hydra/launcher=submitit_slurm "*) "${command[@]}" & jobs+=("$name $!") ;;
        *) "${command[@]}" || code=$?; note "$name" "$code" ;;
    esac
done
for job in ${jobs[@]+"${jobs[@]}"}; do
    code=0
    wait "${job#* }" || code=$?
    note "${job% *}" "$code"
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 2; }
