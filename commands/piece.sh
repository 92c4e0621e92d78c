#!/usr/bin/env bash
# A piece of reproduce.sh, for machines that are lent for minutes and come back empty:
#   bash commands/piece.sh MINUTES FOLDER TABLE [SCALE] [key=value ...]
# FOLDER carries the runs from one machine to the next, in files of at most 16 MiB. What it holds goes on (nothing:
# it begins) in output/pieces; after MINUTES it is stopped, saves, and FOLDER holds what it reached. Data lie in
# data_dir and are not carried: bring them, or each machine collects them anew, the same ones, on all its cores.
set -euo pipefail
if [ $# -lt 3 ] || ! [[ "$1" =~ ^[0-9.]+$ ]]; then
    echo "error: give MINUTES FOLDER TABLE [SCALE] [key=value ...], such as bash commands/piece.sh 9 carried" \
        "main paper experiments=ppp-state agents=ec-sgiql seeds=0 download=false" >&2
    exit 2
fi
minutes="$1" folder="$2"
shift 2
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt
mkdir -p "$folder"
runs="${OUTPUT:-output/pieces}/$(basename "$folder")"

# Pieces are numbered. A machine goes on with what it has if that comes from the newest.
newest="$(find "$folder" -name 'piece-*' | sort | tail -n 1)"
number="${newest##*-}"
if [ "$(cat "$runs/number" 2>/dev/null || echo none)" != "$number" ]; then
    rm -rf "$runs"
    mkdir -p "$runs"
    [ -z "$newest" ] || cat "$newest"/* | tar -x -C "$runs"
    echo "$number" > "$runs/number"
fi
code=0
timeout --preserve-status "${minutes}m" python -m common.paper.reproduce "$@" "output_dir=$runs" || code=$?

# The piece before this one goes when this one is complete.
next="$(printf %04d $((10#0$number + 1)))"
rm -rf "$folder/new"
mkdir "$folder/new"
tar -c --format=posix --exclude=./number -C "$runs" . |
    split --bytes=16M --numeric-suffixes --suffix-length=4 - "$folder/new/part-"
mv "$folder/new" "$folder/piece-$next"
echo "$next" > "$runs/number"
[ -z "$newest" ] || rm -r "$newest"
echo "piece $next, $(du -sh "$folder/piece-$next" | cut -f1): $folder"
[ "$code" -eq 143 ] || exit "$code"  # stopped after MINUTES, as it should be
