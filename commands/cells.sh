# Sourced by collect.sh, train.sh and eval.sh, whose lines are `cell NAME COMMAND...`. Without arguments
# they list the names; with a name they run that line's command with the other arguments appended.

chosen="${1:-}"
[ $# -eq 0 ] || shift
overrides=("$@")

cell() {
    if [ -z "$chosen" ]; then
        echo "$1"
    elif [ "$1" = "$chosen" ]; then
        shift
        command=("$@" ${overrides[@]+"${overrides[@]}"})
        source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt
        printf '%q ' "${command[@]}"
        echo
        exec "${command[@]}"
    fi
}

# Reached by a list, or with a name that no line has.
end_of_cells() {
    if [ -n "$chosen" ]; then
        echo "error: there is no $chosen in $0; without arguments it lists its names" >&2
        exit 2
    fi
}
