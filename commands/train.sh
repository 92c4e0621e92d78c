#!/usr/bin/env bash
# Trains an agent of the paper's tables: `bash commands/train.sh NAME [overrides, such as seed=1]`,
# without NAME the list. Each line below is one cell; from `python` on it can be copied. It needs the
# dataset of commands/collect.sh and writes output/train/EXPERIMENT_AGENT_SEED. Stopped, it continues.
# Several seeds, one after the other: `seed=0,1,2,3 -m`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/cells.sh"

# PPP-Cube from simulator state
cell ppp-state/ec-sgiql python train.py task=manipobj-v0 env_kwargs.manipobj.mode=task env_kwargs.manipobj.num_cubes=3 obs=ec_state_gen train_dataset_name=ppp-cube-noisy-v0 agent=sgiql sgiql.subgoal_policy_type=diffusion sgiql.alpha=0.1 sgiql.n_diffusion_samples=256 sgiql.value_competence_radius=-30 sgiql.subgoal_steps=25 sgiql.num_subgoals=32 steps=2501000 max_episode_steps=1000 num_eval_episodes=100 'run_name=ppp-state_ec-sgiql_${seed}'
cell ppp-state/ec-sgiql-awr python train.py task=manipobj-v0 env_kwargs.manipobj.mode=task env_kwargs.manipobj.num_cubes=3 obs=ec_state_gen train_dataset_name=ppp-cube-noisy-v0 agent=sgiql sgiql.subgoal_policy_type=standard sgiql.alpha=0.1 sgiql.subgoal_steps=25 sgiql.num_subgoals=32 steps=2501000 max_episode_steps=1000 num_eval_episodes=100 'run_name=ppp-state_ec-sgiql-awr_${seed}'
cell ppp-state/ec-iql python train.py task=manipobj-v0 env_kwargs.manipobj.mode=task env_kwargs.manipobj.num_cubes=3 obs=ec_state_gen train_dataset_name=ppp-cube-noisy-v0 agent=iql iql.alpha=0.1 steps=2501000 max_episode_steps=1000 num_eval_episodes=100 'run_name=ppp-state_ec-iql_${seed}'
cell ppp-state/hiql python train.py task=manipobj-v0 env_kwargs.manipobj.mode=task env_kwargs.manipobj.num_cubes=3 obs=state train_dataset_name=ppp-cube-noisy-v0 agent=hiql hiql.alpha=0.1 hiql.subgoal_steps=25 hiql.num_subgoals=32 steps=2501000 max_episode_steps=1000 num_eval_episodes=100 'run_name=ppp-state_hiql_${seed}'
cell ppp-state/iql python train.py task=manipobj-v0 env_kwargs.manipobj.mode=task env_kwargs.manipobj.num_cubes=3 obs=state train_dataset_name=ppp-cube-noisy-v0 agent=iql iql.alpha=0.1 steps=2501000 max_episode_steps=1000 num_eval_episodes=100 'run_name=ppp-state_iql_${seed}'

# Stack-Cube from simulator state
cell stack-state/ec-sgiql python train.py task=manipobj-v0 env_kwargs.manipobj.mode=task_stack_all env_kwargs.manipobj.num_cubes=3 obs=ec_state_gen train_dataset_name=stack-cube-noisy-v0 agent=sgiql sgiql.subgoal_policy_type=diffusion sgiql.alpha=0.05 sgiql.n_diffusion_samples=256 sgiql.value_competence_radius=-30 sgiql.subgoal_steps=25 sgiql.num_subgoals=32 steps=3001000 max_episode_steps=1000 num_eval_episodes=100 'run_name=stack-state_ec-sgiql_${seed}'
cell stack-state/ec-sgiql-awr python train.py task=manipobj-v0 env_kwargs.manipobj.mode=task_stack_all env_kwargs.manipobj.num_cubes=3 obs=ec_state_gen train_dataset_name=stack-cube-noisy-v0 agent=sgiql sgiql.subgoal_policy_type=standard sgiql.alpha=0.05 sgiql.subgoal_steps=25 sgiql.num_subgoals=32 steps=3001000 max_episode_steps=1000 num_eval_episodes=100 'run_name=stack-state_ec-sgiql-awr_${seed}'
cell stack-state/ec-iql python train.py task=manipobj-v0 env_kwargs.manipobj.mode=task_stack_all env_kwargs.manipobj.num_cubes=3 obs=ec_state_gen train_dataset_name=stack-cube-noisy-v0 agent=iql iql.alpha=0.1 steps=3001000 max_episode_steps=1000 num_eval_episodes=100 'run_name=stack-state_ec-iql_${seed}'
cell stack-state/hiql python train.py task=manipobj-v0 env_kwargs.manipobj.mode=task_stack_all env_kwargs.manipobj.num_cubes=3 obs=state train_dataset_name=stack-cube-noisy-v0 agent=hiql hiql.alpha=0.2 hiql.subgoal_steps=25 hiql.num_subgoals=32 steps=3001000 max_episode_steps=1000 num_eval_episodes=100 'run_name=stack-state_hiql_${seed}'
cell stack-state/iql python train.py task=manipobj-v0 env_kwargs.manipobj.mode=task_stack_all env_kwargs.manipobj.num_cubes=3 obs=state train_dataset_name=stack-cube-noisy-v0 agent=iql iql.alpha=0.05 steps=3001000 max_episode_steps=1000 num_eval_episodes=100 'run_name=stack-state_iql_${seed}'

end_of_cells
