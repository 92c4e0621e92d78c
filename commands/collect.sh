#!/usr/bin/env bash
# Collects a dataset of the paper: `bash commands/collect.sh NAME [overrides]`, without NAME the list.
# Each line below is one dataset; from `python` on it can be copied. Stopped, it continues.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/cells.sh"

# States alone, for the experiments from state
cell ppp-state python collect.py task=manipobj-v0 env_kwargs.manipobj.mode=data_collection env_kwargs.manipobj.num_cubes=3 obs=state dataset_name=ppp-cube-noisy-v0 dataset_type=noisy num_collect_episodes=7500 max_episode_steps=400
cell stack-state python collect.py task=manipobj-v0 env_kwargs.manipobj.mode=data_collection_stack env_kwargs.manipobj.num_cubes=3 obs=state dataset_name=stack-cube-noisy-v0 dataset_type=noisy p_random_action=0.02 num_collect_episodes=3000 max_episode_steps=1000

end_of_cells
