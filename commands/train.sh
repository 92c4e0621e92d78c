#!/usr/bin/env bash
# Trains an agent of the paper's tables: `bash commands/train.sh NAME [overrides, such as seed=1]`,
# without NAME the list. Each line below is one cell, or ours beside them; from `python` on it can be copied. It needs the
# dataset of commands/collect.sh and writes output/train/EXPERIMENT_AGENT_SEED. Stopped, it continues.
# Several seeds, one after the other: `seed=0,1,2,3 -m`.

# without NAME the list. Each line below is one cell; from `python` on it can be copied. It needs the
# dataset of commands/collect.sh, or OGBench's, and writes output/train/EXPERIMENT_AGENT_SEED. Stopped,
# it continues. Several seeds, one after the other: `seed=0,1,2,3 -m`.
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

# Scene from simulator state: ours, with the paper's settings from images
cell scene-state/ec-sgiql python train.py task=visual-scene-v0 env_kwargs.scene.mode=task env_kwargs.scene.num_cubes=1 obs=ec_state train_dataset_name=visual-scene-noisy-v0-state agent=sgiql sgiql.subgoal_policy_type=diffusion sgiql.alpha=0.3 sgiql.n_diffusion_samples=64 sgiql.value_competence_radius=-25 sgiql.subgoal_steps=50 sgiql.num_subgoals=16 steps=1501000 max_episode_steps=1000 num_eval_episodes=20 'run_name=scene-state_ec-sgiql_${seed}'
cell scene-state/ec-sgiql-awr python train.py task=visual-scene-v0 env_kwargs.scene.mode=task env_kwargs.scene.num_cubes=1 obs=ec_state train_dataset_name=visual-scene-noisy-v0-state agent=sgiql sgiql.subgoal_policy_type=standard sgiql.alpha=0.3 sgiql.subgoal_steps=50 sgiql.num_subgoals=16 steps=1501000 max_episode_steps=1000 num_eval_episodes=20 'run_name=scene-state_ec-sgiql-awr_${seed}'
cell scene-state/ec-iql python train.py task=visual-scene-v0 env_kwargs.scene.mode=task env_kwargs.scene.num_cubes=1 obs=ec_state train_dataset_name=visual-scene-noisy-v0-state agent=iql iql.alpha=0.3 steps=1501000 max_episode_steps=1000 num_eval_episodes=20 'run_name=scene-state_ec-iql_${seed}'
cell scene-state/hiql python train.py task=visual-scene-v0 env_kwargs.scene.mode=task env_kwargs.scene.num_cubes=1 obs=state train_dataset_name=visual-scene-noisy-v0-state agent=hiql hiql.alpha=0.4 hiql.subgoal_steps=50 hiql.num_subgoals=16 steps=1501000 max_episode_steps=1000 num_eval_episodes=20 'run_name=scene-state_hiql_${seed}'
cell scene-state/iql python train.py task=visual-scene-v0 env_kwargs.scene.mode=task env_kwargs.scene.num_cubes=1 obs=state train_dataset_name=visual-scene-noisy-v0-state agent=iql iql.alpha=0.2 steps=1501000 max_episode_steps=1000 num_eval_episodes=20 'run_name=scene-state_iql_${seed}'

# Push-Tetris from simulator state: ours, with the paper's settings from images
cell tetris-state/ec-sgiql python train.py task=pushtetris-v0 env_kwargs.pushtetris.mode=task env_kwargs.pushtetris.num_objects=3 obs=ec_state train_dataset_name=push-tetris-constrained_random-v0-state agent=sgiql sgiql.subgoal_policy_type=diffusion sgiql.alpha=0.1 sgiql.n_diffusion_samples=64 sgiql.value_competence_radius=-20 sgiql.subgoal_steps=25 sgiql.num_subgoals=32 steps=1001000 max_episode_steps=1000 num_eval_episodes=100 'run_name=tetris-state_ec-sgiql_${seed}'
cell tetris-state/ec-sgiql-awr python train.py task=pushtetris-v0 env_kwargs.pushtetris.mode=task env_kwargs.pushtetris.num_objects=3 obs=ec_state train_dataset_name=push-tetris-constrained_random-v0-state agent=sgiql sgiql.subgoal_policy_type=standard sgiql.alpha=0.1 sgiql.subgoal_steps=25 sgiql.num_subgoals=32 steps=1001000 max_episode_steps=1000 num_eval_episodes=100 'run_name=tetris-state_ec-sgiql-awr_${seed}'
cell tetris-state/ec-iql python train.py task=pushtetris-v0 env_kwargs.pushtetris.mode=task env_kwargs.pushtetris.num_objects=3 obs=ec_state train_dataset_name=push-tetris-constrained_random-v0-state agent=iql iql.alpha=0.1 steps=1001000 max_episode_steps=1000 num_eval_episodes=100 'run_name=tetris-state_ec-iql_${seed}'
cell tetris-state/hiql python train.py task=pushtetris-v0 env_kwargs.pushtetris.mode=task env_kwargs.pushtetris.num_objects=3 obs=state train_dataset_name=push-tetris-constrained_random-v0-state agent=hiql hiql.alpha=0.1 hiql.subgoal_steps=25 hiql.num_subgoals=32 steps=1001000 max_episode_steps=1000 num_eval_episodes=100 'run_name=tetris-state_hiql_${seed}'
cell tetris-state/iql python train.py task=pushtetris-v0 env_kwargs.pushtetris.mode=task env_kwargs.pushtetris.num_objects=3 obs=state train_dataset_name=push-tetris-constrained_random-v0-state agent=iql iql.alpha=0.1 steps=1001000 max_episode_steps=1000 num_eval_episodes=100 'run_name=tetris-state_iql_${seed}'

# Raw images: ours, beside the paper's flat IQL on codes. The images lie in memory: 275, 46 and 46 GiB
# (train_dataset_div=N takes one Nth of the episodes)
cell ppp-image/iql-rgb python train.py task=manipobj-v0 env_kwargs.manipobj.mode=task env_kwargs.manipobj.num_cubes=3 obs=rgb multiview=true train_dataset_name=ppp-cube-noisy-v0-mv agent=iql iql.alpha=0.2 steps=2501000 max_episode_steps=1000 eval_freq=250000 num_eval_episodes=50 'run_name=ppp-image_iql-rgb_${seed}'
cell scene-image/iql-rgb python train.py task=visual-scene-v0 env_kwargs.scene.mode=task env_kwargs.scene.num_cubes=1 obs=rgb train_dataset_name=visual-scene-noisy-v0 agent=iql iql.alpha=0.2 steps=1501000 max_episode_steps=1000 eval_freq=250000 num_eval_episodes=20 'run_name=scene-image_iql-rgb_${seed}'
cell tetris-image/iql-rgb python train.py task=pushtetris-v0 env_kwargs.pushtetris.mode=task env_kwargs.pushtetris.num_objects=3 obs=rgb train_dataset_name=push-tetris-constrained_random-v0 agent=iql iql.alpha=0.1 steps=1001000 max_episode_steps=1000 eval_freq=250000 num_eval_episodes=100 'run_name=tetris-image_iql-rgb_${seed}'

# OGBench from state, with its rewards. The agents' settings are those of the paper's nearest
# experiment, but for a derived radius: they were not tuned for OGBench.
cell ogbench-cube-double/ec-sgiql python train.py ogbench=true task=cube-double-play-v0 reward=unsupervised obs=ec_state_gen agent=sgiql sgiql.subgoal_policy_type=diffusion sgiql.alpha=0.1 sgiql.n_diffusion_samples=256 sgiql.value_competence_radius=auto sgiql.subgoal_steps=25 sgiql.num_subgoals=16 steps=1000000 num_eval_episodes=20 'run_name=ogbench-cube-double_ec-sgiql_${seed}'
cell ogbench-cube-double/ec-iql python train.py ogbench=true task=cube-double-play-v0 reward=unsupervised obs=ec_state_gen agent=iql iql.alpha=0.1 steps=1000000 num_eval_episodes=20 'run_name=ogbench-cube-double_ec-iql_${seed}'
cell ogbench-cube-double/hiql python train.py ogbench=true task=cube-double-play-v0 reward=unsupervised obs=state agent=hiql hiql.alpha=0.1 hiql.subgoal_steps=25 hiql.num_subgoals=16 steps=1000000 num_eval_episodes=20 'run_name=ogbench-cube-double_hiql_${seed}'
cell ogbench-cube-double/iql python train.py ogbench=true task=cube-double-play-v0 reward=unsupervised obs=state agent=iql iql.alpha=0.1 steps=1000000 num_eval_episodes=20 'run_name=ogbench-cube-double_iql_${seed}'
cell ogbench-scene/ec-sgiql python train.py ogbench=true task=scene-play-v0 reward=unsupervised obs=ec_state agent=sgiql sgiql.subgoal_policy_type=diffusion sgiql.alpha=0.3 sgiql.n_diffusion_samples=64 sgiql.value_competence_radius=auto sgiql.subgoal_steps=50 sgiql.num_subgoals=12 steps=1000000 num_eval_episodes=20 'run_name=ogbench-scene_ec-sgiql_${seed}'
cell ogbench-scene/ec-iql python train.py ogbench=true task=scene-play-v0 reward=unsupervised obs=ec_state agent=iql iql.alpha=0.3 steps=1000000 num_eval_episodes=20 'run_name=ogbench-scene_ec-iql_${seed}'
cell ogbench-scene/hiql python train.py ogbench=true task=scene-play-v0 reward=unsupervised obs=state agent=hiql hiql.alpha=0.4 hiql.subgoal_steps=50 hiql.num_subgoals=12 steps=1000000 num_eval_episodes=20 'run_name=ogbench-scene_hiql_${seed}'
cell ogbench-scene/iql python train.py ogbench=true task=scene-play-v0 reward=unsupervised obs=state agent=iql iql.alpha=0.2 steps=1000000 num_eval_episodes=20 'run_name=ogbench-scene_iql_${seed}'
cell ogbench-puzzle-3x3/hiql python train.py ogbench=true task=puzzle-3x3-play-v0 reward=unsupervised obs=state agent=hiql hiql.alpha=0.4 hiql.subgoal_steps=25 hiql.num_subgoals=16 steps=1000000 num_eval_episodes=20 'run_name=ogbench-puzzle-3x3_hiql_${seed}'
cell ogbench-puzzle-3x3/iql python train.py ogbench=true task=puzzle-3x3-play-v0 reward=unsupervised obs=state agent=iql iql.alpha=0.2 steps=1000000 num_eval_episodes=20 'run_name=ogbench-puzzle-3x3_iql_${seed}'

end_of_cells
