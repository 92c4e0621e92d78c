#!/usr/bin/env bash
# Trains an image encoder of the paper: `bash commands/train_encoder.sh NAME [overrides, such as seed=1]`,
# without NAME the list. Each line below is one encoder; from `python` on it can be copied, and after
# `accelerate launch ... -m` it runs on several GPUs. It needs the dataset of commands/collect.sh and writes
# output/encoders/EXPERIMENT_KIND_SEED, which is what rep_model_checkpoint takes. Stopped, it continues.
# Stack-Cube has no encoder of its own: PPP-Cube's serve it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/cells.sh"

# The images that the reference used: of a third of the episodes the first 400 (DLP) or 50 (VQ-VAE). Without
# train_dataset_div and encoder.frames_per_episode it is all of them, and an epoch is that much longer.
# VQ-VAEs need the published vqvae-mv-ppp-cube-v0 (docs/images.md), whose perceptual network judges their pictures.
cell ppp-image/dlp python -m visual_encoders.train encoder.kind=dlp train_dataset_name=ppp-cube-noisy-v0-mv train_dataset_div=3 encoder.frames_per_episode=400 encoder.dlp.n_kp_enc=20 encoder.dlp.epochs=250 'run_name=ppp-image_dlp_${seed}'
cell ppp-image/vqvae python -m visual_encoders.train encoder.kind=vqvae train_dataset_name=ppp-cube-noisy-v0-mv train_dataset_div=3 encoder.frames_per_episode=50 encoder.vqvae.epochs=150 'run_name=ppp-image_vqvae_${seed}'
cell scene-image/dlp python -m visual_encoders.train encoder.kind=dlp train_dataset_name=visual-scene-noisy-v0 train_dataset_div=3 encoder.frames_per_episode=400 encoder.dlp.n_kp_enc=24 encoder.dlp.epochs=250 'run_name=scene-image_dlp_${seed}'
cell scene-image/vqvae python -m visual_encoders.train encoder.kind=vqvae train_dataset_name=visual-scene-noisy-v0 train_dataset_div=3 encoder.frames_per_episode=50 encoder.vqvae.epochs=150 'run_name=scene-image_vqvae_${seed}'
cell tetris-image/dlp python -m visual_encoders.train encoder.kind=dlp train_dataset_name=push-tetris-constrained_random-v0 train_dataset_div=3 encoder.frames_per_episode=400 encoder.dlp.n_kp_enc=20 encoder.dlp.epochs=250 'run_name=tetris-image_dlp_${seed}'
cell tetris-image/vqvae python -m visual_encoders.train encoder.kind=vqvae train_dataset_name=push-tetris-constrained_random-v0 train_dataset_div=3 encoder.frames_per_episode=50 encoder.vqvae.epochs=150 'run_name=tetris-image_vqvae_${seed}'

end_of_cells
