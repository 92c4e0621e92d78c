#!/usr/bin/env bash
# Collects a dataset of the paper: `bash commands/collect.sh NAME [overrides]`, without NAME the list.
# Each line below is one dataset; from `python` on it can be copied. Stopped, it continues.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/cells.sh"

# States alone, for the experiments from state
cell ppp-state python collect.py task=manipobj-v0 env_kwargs.manipobj.mode=data_collection env_kwargs.manipobj.num_cubes=3 obs=state dataset_name=ppp-cube-noisy-v0 dataset_type=noisy num_collect_episodes=7500 max_episode_steps=400
cell stack-state python collect.py task=manipobj-v0 env_kwargs.manipobj.mode=data_collection_stack env_kwargs.manipobj.num_cubes=3 obs=state dataset_name=stack-cube-noisy-v0 dataset_type=noisy p_random_action=0.02 num_collect_episodes=3000 max_episode_steps=1000
cell scene-state python collect.py task=visual-scene-v0 env_kwargs.scene.mode=data_collection env_kwargs.scene.num_cubes=1 obs=state multiview=false dataset_name=visual-scene-noisy-v0-state dataset_type=noisy num_collect_episodes=1000 max_episode_steps=1000
cell tetris-state python collect.py task=pushtetris-v0 env_kwargs.pushtetris.mode=data_collection env_kwargs.pushtetris.num_objects=3 obs=state dataset_name=push-tetris-constrained_random-v0-state dataset_type=noisy num_collect_episodes=2500 max_episode_steps=400

# Images and states, as published: 275 GiB each of the first two unpacked, 46 and 52 of the others
cell ppp-image python collect.py task=manipobj-v0 env_kwargs.manipobj.mode=data_collection env_kwargs.manipobj.num_cubes=3 obs=rgb multiview=true dataset_name=ppp-cube-noisy-v0-mv dataset_type=noisy num_collect_episodes=7500 max_episode_steps=400
cell stack-image python collect.py task=manipobj-v0 env_kwargs.manipobj.mode=data_collection_stack env_kwargs.manipobj.num_cubes=3 obs=rgb multiview=true dataset_name=stack-cube-noisy-v0-mv dataset_type=noisy p_random_action=0.02 num_collect_episodes=3000 max_episode_steps=1000
cell scene-image python collect.py task=visual-scene-v0 env_kwargs.scene.mode=data_collection env_kwargs.scene.num_cubes=1 obs=rgb multiview=false dataset_name=visual-scene-noisy-v0 dataset_type=noisy num_collect_episodes=1000 max_episode_steps=1000
cell tetris-image python collect.py task=pushtetris-v0 env_kwargs.pushtetris.mode=data_collection env_kwargs.pushtetris.num_objects=3 obs=rgb dataset_name=push-tetris-constrained_random-v0 dataset_type=noisy num_collect_episodes=2500 max_episode_steps=400

end_of_cells
