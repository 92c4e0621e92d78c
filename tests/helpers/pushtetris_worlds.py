"""Push-Tetris worlds for tests: the settings of `config.yaml`, and random episodes."""

from typing import Any

import gymnasium as gym
import numpy as np

from envs.pushtetris import rules
from envs.pushtetris.physics import Plane
from envs.pushtetris.world import PushTetris, PushTetrisSettings

DEFAULTS = {
    "mode": "task",
    "reward_mode": "sparse",
    "object_list": tuple(rules.PIECES),
    "num_objects": 3,
    "visualize_target": False,
    "render_size": 128,
}


def make_world(*, max_episode_steps: int = 30, **changes: Any) -> PushTetris:
    """Return the world with `changes` to `DEFAULTS`."""
    settings = PushTetrisSettings(**(DEFAULTS | changes))
    return PushTetris(settings, max_episode_steps=max_episode_steps)


def make_env(pixels: bool = False, **changes: Any) -> gym.Env:
    """Return its environment without the time limit."""
    return make_world(**changes).make(pixels=pixels).unwrapped


def random_episode(env: gym.Env, seed: int, steps: int) -> list[dict[str, Any]]:
    """Return the infos of an episode: the reset's, then those of `steps` random actions."""
    actions = np.random.default_rng(seed).uniform(-1, 1, (steps, 2)).astype(np.float32)
    infos = [env.reset(seed=seed)[1]]
    infos += [env.step(action)[4] for action in actions]
    return infos


def put(env: gym.Env, poses: np.ndarray) -> None:
    """Put agent and pieces at poses (N + 1, 3)."""
    env._plane = Plane([rules.PIECES[name] for name in env._names], poses)
    env._poses = env._plane.poses
    env._look()
