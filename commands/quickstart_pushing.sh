#!/usr/bin/env bash
# From an empty machine to an agent that pushes a cube to its goal, learned from what it does itself, on
# two CPU cores (ECRL: TD3 with hindsight goals). There is no data to collect: one core acts, the other
# learns. Evaluated beside a random policy. Run again it reuses what is there and continues what was
# stopped; further overrides are passed to the training (e.g. steps=60000).
#     bash commands/quickstart_pushing.sh [entities] [overrides of training]
# With `entities` a transformer over pusher, cube and goals, as in the paper, instead of an MLP.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt
sight=(obs=state td3.h_dim=128 batch_size=256 steps=30000)
name=quickstart-pushing
if [ "${1-}" = entities ]; then
    shift
    sight=(obs=ec_state arch_eit.embed_dim=32 arch_eit.n_head=4 td3.h_dim=64 batch_size=128 steps=30000)
    name+=-entities
fi
source commands/phases.sh
world=(task=pushing-v0 env_kwargs.pushing.num_objects=1)

# The preset. As published, targets move once per burst of updates: in so short a run hardly a hundred
# times. They move after each update here, look less far ahead, and large actions cost less. At first
# hardly an action touches the cube, so most transitions are of episodes in which it moved.
preset=(agent=td3 run_name=$name online.updates_per_step=0.25 online.overlap=true threads=1
    td3.gamma=0.95 td3.lr=1e-3 td3.tau=0.01 td3.target_period=1 td3.action_penalty=0.2
    td3.moved_share=0.6 td3.explore_eps=0.5
    num_eval_episodes=40 num_eval_envs=8 num_workers=1 eval_freq=5000 log_freq=500 checkpoint_freq=1000
    save_video=false)
evaluation=("eval_checkpoint=$output/train/$name" num_eval_episodes=100 num_eval_envs=8 save_video=false)

phase "1/3 training"
python train.py "${world[@]}" "${preset[@]}" "${sight[@]}" "$@"
python -m common.runs.curves "$output/train/$name"

phase "2/3 evaluating"
evaluate policy save_video=true num_video_episodes=3 video_frame_skip=1

phase "3/3 evaluating a random policy"
evaluate random random_policy=true

phase "result"
python -m common.tools.report "$output/train/$name" --text
