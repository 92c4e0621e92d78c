# Sourced by the quickstarts, which set name, the run's folder in $output/train, and evaluation.

output=output   # folder of all results, or what the quickstart's arguments say
machine=()      # their settings of place and machine, which are the evaluations', too
for override in "$@"; do
    case $override in
    output_dir=*) output=${override#*=} machine+=("$override") ;;
    threads=* | device=* | num_workers=*) machine+=("$override") ;;
    esac
done

phase() { echo; echo "== $1 ($(date +%T)) =="; }

# Evaluates as variant $1, with the other arguments, unless that was done since the last update.
evaluate() {
    local last=$output/train/$name/last.safetensors
    if find "$output/eval" -path "*_$1_*/metrics.json" -newer "$last" 2>/dev/null | grep -q .; then
        echo "done before"
    else
        python evaluate.py "${evaluation[@]}" "${machine[@]}" eval_variant_name="$@"
    fi
}
