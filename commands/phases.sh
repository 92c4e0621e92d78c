# Sourced by the quickstarts, which set name, the run's folder in $output/train, and evaluation.

output=output # of all results, or what the quickstart's arguments say
for override in "$@"; do
    if [[ $override == output_dir=* ]]; then output=${override#*=}; fi
done

phase() { echo; echo "== $1 ($(date +%T)) =="; }

# Evaluates as variant $1, with the other arguments, unless that was done since the last update.
evaluate() {
    local last=$output/train/$name/last.safetensors
    if find "$output/eval" -path "*_$1_*/metrics.json" -newer "$last" 2>/dev/null | grep -q .; then
        echo "done before"
    else
        python evaluate.py "${evaluation[@]}" "output_dir=$output" eval_variant_name="$@"
    fi
}
