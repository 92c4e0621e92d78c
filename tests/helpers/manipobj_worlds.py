"""Cube worlds for tests: small settings and random episodes."""

from typing import Any

import gymnasium as gym
import numpy as np

from envs.manipobj.world import ManipObj, ManipObjSettings

DEFAULTS = {
    "mode": "task",
    "reward_mode": "sparse",
    "num_cubes": 3,
    "num_colors": 6,
    "p_push": 0.7,
    "p_stack": None,
    "random_colors": True,
    "reward_scale": 1.0,
    "visualize_info": False,
    "terminate_at_goal": False,
    "width": 32,
    "height": 32,
    "render_quality": "full",
}


def make_world(*, multiview: bool = False, max_episode_steps: int = 20, **changes: Any) -> ManipObj:
    """Return the cube world with `changes` to `DEFAULTS`."""
    settings = ManipObjSettings(**(DEFAULTS | changes))
    return ManipObj(settings, max_episode_steps=max_episode_steps, multiview=multiview)


def random_episode(env: gym.Env, seed: int, steps: int) -> list[dict[str, Any]]:
    """Return the infos of an episode: the reset's, then those of `steps` random actions."""
    actions = np.random.default_rng(seed).uniform(-1, 1, (steps, 5)).astype(np.float32)
    infos = [env.reset(seed=seed)[1]]
    infos += [env.step(action)[4] for action in actions]
    return infos
