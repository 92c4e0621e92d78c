#!/usr/bin/env bash
# From an empty machine to an agent that sees Push-Tetris through a camera alone, on two CPU cores.
# Collects images, trains a DLP encoder on them, turns them into particles, trains EC-SGIQL on those, and
# evaluates it with and without subgoals and beside a random policy. Run again it reuses what is there and
# continues what was stopped; further overrides are passed to the agent's training (e.g. steps=20000).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt
source commands/phases.sh

name=quickstart-images

# The world: one piece, the square, in images of 64 x 64 pixels (the paper: three of seven, 128 x 128).
size=64
world=(task=pushtetris-v0 env_kwargs.pushtetris.num_objects=1 'env_kwargs.pushtetris.object_list=[O]'
    env_kwargs.pushtetris.render_size=$size)

# 500 episodes of 100 steps: 50,000 images (the paper: 2500 episodes of 400 steps). With one piece the
# pusher comes from afar only when an episode begins, so there are many short ones.
collection=(env_kwargs.pushtetris.mode=data_collection obs=rgb dataset_name=$name
    num_collect_episodes=500 max_episode_steps=100)

# The encoder: the paper's DLP with 16 patches and particles instead of 64 and 20, half as wide and less.
# A pass over all images takes too long, so an epoch is 400 updates. Few updates want high learning
# rates: 2e-3 for glimpses alone (the paper's warm-up has 31,000 updates), then 5e-4 for the whole image,
# where with 1e-3 or more all particles turn transparent at once and stay so. An image has a quarter of
# the paper's pixels, so the KL terms have a quarter of their weight: else particles may be given up
# before one finds the pusher, eleven pixels.
encoder=output/encoders/$name
encoder_preset=(encoder.kind=dlp train_dataset_name=$name run_name=$name encoder.image_size=$size
    encoder.batch_size=16 encoder.updates_per_epoch=400 encoder.lr=5e-4 encoder.adam_eps=1e-8
    encoder.valid_images=256 encoder.read_workers=1
    encoder.dlp.epochs=22 encoder.dlp.warmup_epoch=5 encoder.dlp.warmup_lr=2e-3 encoder.dlp.beta_kl=0.025
    encoder.dlp.n_kp_enc=16 encoder.dlp.learned_feature_dim=8 encoder.dlp.prior_channels=[8,16,32]
    encoder.dlp.enc_channels=[8,16,32] encoder.dlp.obj_dec_channels=[32,32,16]
    encoder.dlp.bg_dec_channels=[16,16,32])

# What agents see: the 6 particles of 16 that the encoder is surest of. They hold the piece as often as
# all 16 do, the pusher nearly (in 0.88 of images, 0.92), and an agent learns from them twice as fast.
sight=(obs=dlp rep_model_checkpoint=$encoder dlp_post_training_num_kp=6)

# The agent: as quickstart.sh's of Push-Tetris, the paper's method in small networks. Within an episode
# the pusher and the piece move together: an agent that knows no other goals takes a pusher that is where
# it shall be for a piece that is. So three in ten goals of values, half of the policies', are from other
# episodes (the paper: none), which the rewards allow with one kind of piece.
preset=(agent=sgiql train_dataset_name=$name run_name=$name
    arch_eit.embed_dim=32 arch_eit.h_dim=64 arch_eit.n_head=4 arch_eit.n_diffuser_layers=2
    batch_size=128 lr=5e-4 lr_decay_steps=5000 gamma=0.95 steps=25000
    p_trajgoal_value=0.5 p_randgoal_value=0.3 p_trajgoal_policy=0.5 p_randgoal_policy=0.5
    sgiql.tau=0.05 sgiql.alpha=0.3 sgiql.alpha_decay_steps=5000 sgiql.expectile=0.9
    sgiql.n_diffusion_samples=32 sgiql.subgoal_k=25 sgiql.value_competence_radius=-17 sgiql.num_subgoals=6
    max_episode_steps=200 eval_freq=1000000 num_eval_episodes=10 num_eval_envs=10
    log_freq=250 checkpoint_freq=250 save_video=false)

evaluation=(eval_checkpoint=output/train/$name num_eval_episodes=30 num_eval_envs=10 save_video=true)

phase "1/7 collecting images"
python collect.py "${world[@]}" "${collection[@]}"

phase "2/7 training the encoder"
python -m visual_encoders.train "${encoder_preset[@]}"

phase "3/7 turning the images into particles"
python -m visual_encoders.encode $name "${sight[@]}"

phase "4/7 training the agent"
python train.py "${world[@]}" "${sight[@]}" "${preset[@]}" "$@"
python -m common.runs.curves output/train/$name

phase "5/7 evaluating with subgoals"
evaluate subgoals num_video_episodes=3 video_frame_skip=3

phase "6/7 evaluating the same agent without subgoals"
evaluate no-subgoals sgiql.disable_subgoal=true num_video_episodes=0

phase "7/7 evaluating a random policy"
evaluate random random_policy=true num_video_episodes=0

phase "result"
python -m common.tools.report output/train/$name --text
