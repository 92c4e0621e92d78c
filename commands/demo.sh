#!/usr/bin/env bash
# Shows an agent that comes with the code: `bash commands/demo.sh [NAME] [overrides]`, NAME being a
# folder of results/agents (without it the first). A few episodes, their video with subgoals, and a
# page about both. AGENTS and OUTPUT name other folders.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt

agents="${AGENTS:-results/agents}"
output="${OUTPUT:-output/demo}"
names="$(cd "$agents" 2>/dev/null && dirname -- */last.safetensors || true)"
if [ -z "$names" ] || [ "$names" = "*" ]; then
    echo "error: no agent in $agents; train one (commands/quickstart.sh) and copy its run folder there" >&2
    exit 2
fi
name="$(head -n 1 <<< "$names")"
if [[ $# -gt 0 && "$1" != *=* ]]; then
    name="$1"
    shift
fi
if ! grep -qxF -- "$name" <<< "$names"; then
    echo "error: no agent $name in $agents; there are:" $names >&2
    exit 2
fi

echo "== $name: a few episodes =="
python evaluate.py eval_checkpoint="$agents/$name" eval_variant_name=demo output_dir="$output" \
    num_eval_episodes=6 num_eval_envs=6 num_video_episodes=2 video_frame_skip=8 save_video=true "$@"

newest="$(ls -td "$output"/eval/*/ | head -n 1)"
echo "== open this page in a browser =="
python -m common.tools.report "$newest" --to "$output/report.html"
