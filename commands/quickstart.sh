#!/usr/bin/env bash
# From an empty machine to an agent that acts through generated subgoals, on two CPU cores:
#     bash commands/quickstart.sh [cube|scene|tetris-1|tetris-2|pushing] [overrides of training]
# Collects data with scripted policies, trains EC-SGIQL, evaluates it with and without subgoals and
# beside a random policy; of pushing see quickstart_pushing.sh. Run again it reuses what is there;
# `steps=50000` goes on learning.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt
source commands/phases.sh

world=cube
if [ $# -gt 0 ] && [[ $1 != *=* ]]; then
    world=$1
    shift
fi

# Each world: its task; its data; how far ahead its agent plans; its evaluations, and the episodes of
# those during training. 200,000 and more transitions (the paper: millions). Short episodes hold about
# one task each, so a later state says more about what was wanted. gamma is shorter than the paper's
# 0.99, and R, the competence radius, that of 36 steps. After num_subgoals of 25 steps each (the cube:
# 10, which is all of an episode) the goal itself is pursued.
#
# How it learns: of the policy's first outputs 0.1 % of the change between states and goals is the
# goal's where weights begin at 0.02 (as published, for larger networks), 45 % at 0.1. Critics err at
# first, so imitation leads (alpha). Success of so short a run jumps from checkpoint to checkpoint,
# and its policy stands still where its actions cancel: averages of the parameters act (ema_decay),
# with some noise, and with a new subgoal every 10 steps. See docs/quickstart.md. `first` is what all
# worlds began with, and what the figures of the others in docs/worlds.md rest on.
first=(arch_eit.n_head=4 sgiql.alpha=1.0 eval_freq=7500)
case $world in
cube) # one cube, as in PPP-Cube
    task=(task=manipobj-v0 env_kwargs.manipobj.num_cubes=1 env_kwargs.manipobj.p_push=0.2)
    collection=(env_kwargs.manipobj.mode=data_collection num_collect_episodes=1250 max_episode_steps=160)
    horizon=(gamma=0.95 sgiql.value_competence_radius=-17 sgiql.subgoal_steps=10 sgiql.num_subgoals=30)
    learning=(arch_eit.n_head=8 arch_eit.init_std=0.1 sgiql.alpha=10 steps=7000 eval_freq=4000
        sgiql.ema_decay=0.998 sgiql.action_noise=0.2)
    evaluation=(max_episode_steps=300 num_eval_episodes=100)
    glance=20 ;;
scene) # of each of the five tasks ten episodes, as they are longer
    task=(task=visual-scene-v0)
    collection=(env_kwargs.scene.mode=data_collection num_collect_episodes=800 max_episode_steps=250)
    horizon=(gamma=0.98 sgiql.value_competence_radius=-26 sgiql.num_subgoals=16)
    learning=("${first[@]}" lr=1e-3 steps=12000)
    evaluation=(max_episode_steps=500 num_eval_episodes=10)
    glance=4 ;;
tetris-1 | tetris-2) # one or two pieces
    task=(task=pushtetris-v0 "env_kwargs.pushtetris.num_objects=${world#*-}")
    collection=(env_kwargs.pushtetris.mode=data_collection num_collect_episodes=1500 max_episode_steps=200)
    # Pushed at random, pieces leave a place and do not return: imitation and the mean tell little. A
    # piece is in place within a sixth of its width, which V learns only at a lower rate: at 2e-3 it
    # ends as a constant.
    horizon=(gamma=0.95 sgiql.value_competence_radius=-17 sgiql.num_subgoals=12)
    learning=("${first[@]}" sgiql.expectile=0.9 sgiql.alpha=0.1 lr=5e-4 steps=20000)
    evaluation=(max_episode_steps=400 num_eval_episodes=50)
    glance=20 ;;
pushing)
    exec bash commands/quickstart_pushing.sh "$@" ;;
*)
    echo "error: there is no quickstart for $world; there is cube, scene, tetris-1, tetris-2, pushing" >&2
    exit 2 ;;
esac
name=quickstart-$world
task+=(obs=ec_state)

# The preset: the paper's method in networks small enough for a laptop. Some thousand updates instead
# of millions want a high learning rate that falls, faster targets (tau), nearer subgoals (subgoal_k),
# and an expectile nearer to the mean: early errors are large, and 0.9 takes them for gains.
preset=(agent=sgiql train_dataset_name=$name run_name=$name
    arch_eit.embed_dim=32 arch_eit.h_dim=64 arch_eit.n_diffuser_layers=2
    batch_size=256 lr=2e-3 lr_decay_steps=3000
    sgiql.tau=0.05 sgiql.alpha_decay_steps=5000 sgiql.expectile=0.7
    sgiql.subgoal_k=25 sgiql.n_diffusion_samples=64 "${horizon[@]}" "${learning[@]}"
    "${evaluation[@]}" num_eval_episodes=$glance num_eval_envs=8
    log_freq=250 checkpoint_freq=250 save_video=false)
evaluation+=("eval_checkpoint=$output/train/$name" num_eval_envs=8 save_video=false)

phase "1/5 collecting data"
python collect.py "${task[@]}" "${collection[@]}" dataset_name=$name

phase "2/5 training"
python train.py "${task[@]}" "${preset[@]}" "$@"
python -m common.runs.curves "$output/train/$name"

phase "3/5 evaluating with subgoals"
evaluate subgoals save_video=true num_video_episodes=3 video_frame_skip=5

phase "4/5 evaluating the same agent without subgoals"
evaluate no-subgoals sgiql.disable_subgoal=true

phase "5/5 evaluating a random policy"
evaluate random random_policy=true

phase "result"
python -m common.tools.report "$output/train/$name" --text
