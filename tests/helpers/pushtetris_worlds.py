"""Push-Tetris worlds for tests."""

import functools
from typing import Any

import gymnasium as gym
import numpy as np

from envs.pushtetris import rules
from envs.pushtetris.physics import Plane
from tests.helpers.worlds import world_of

make_world = functools.partial(world_of, "pushtetris-v0", max_episode_steps=30)


def make_env(pixels: bool = False, **changes: Any) -> gym.Env:
    """Return its environment without the time limit."""
    return make_world(**changes).make(pixels=pixels).unwrapped


def put(env: gym.Env, poses: np.ndarray) -> None:
    """Put agent and pieces at poses (N + 1, 3)."""
    env._plane = Plane([rules.PIECES[name] for name in env._names])
    env._plane.place(poses)
    env._poses = env._plane.poses
    env._look()
