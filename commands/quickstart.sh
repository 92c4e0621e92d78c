#!/usr/bin/env bash
# From an empty machine to an agent that moves a cube through generated subgoals, on two CPU cores.
# Collects data with scripted policies, trains EC-SGIQL, evaluates it with and without subgoals.
# Run again it reuses what is there; further overrides are passed to training (e.g. steps=100000).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt
source commands/phases.sh

name=quickstart

# The world: one cube, as in PPP-Cube. See config.yaml for what each setting means.
world=(task=manipobj-v0 env_kwargs.manipobj.num_cubes=1 obs=ec_state)

# 2000 episodes of 100 steps: 200,000 transitions (the paper: 3 cubes, 7500 episodes of 400 steps).
# Short episodes hold about one task each, so a later state says more about what was wanted.
collection=(env_kwargs.manipobj.mode=data_collection dataset_name=$name
    num_collect_episodes=2000 max_episode_steps=100)

# The preset: the paper's method in networks small enough for a laptop. Some thousand updates instead
# of millions want a high learning rate that falls, faster targets (tau), more imitation (alpha),
# nearer subgoals (subgoal_k), a shorter horizon (gamma; R is then -17 for the same 36 steps), and an
# expectile nearer to the mean: the errors of early critics are large, and 0.9 takes them for gains.
preset=(agent=sgiql train_dataset_name=$name run_name=$name
    arch_eit.embed_dim=32 arch_eit.h_dim=64 arch_eit.n_head=4 arch_eit.n_diffuser_layers=2
    batch_size=256 lr=2e-3 lr_decay_steps=3000 gamma=0.95 steps=15000
    sgiql.tau=0.05 sgiql.alpha=1.0 sgiql.expectile=0.7 sgiql.n_diffusion_samples=64
    sgiql.subgoal_k=25 sgiql.value_competence_radius=-17
    max_episode_steps=300 eval_freq=7500 num_eval_episodes=20 num_eval_envs=8
    log_freq=250 checkpoint_freq=250 save_video=false)

evaluation=(eval_checkpoint=output/train/$name num_eval_episodes=50 num_eval_envs=8
    max_episode_steps=300 save_video=true)

phase "1/4 collecting data"
python collect.py "${world[@]}" "${collection[@]}"

phase "2/4 training"
python train.py "${world[@]}" "${preset[@]}" "$@"
python -m common.plots output/train/$name

phase "3/4 evaluating with subgoals"
evaluate subgoals num_video_episodes=3 video_frame_skip=5

phase "4/4 evaluating the same agent without subgoals"
evaluate no-subgoals sgiql.disable_subgoal=true num_video_episodes=0

phase "result"
python -m common.summary output/train/$name
