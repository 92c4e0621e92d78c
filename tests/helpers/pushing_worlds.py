"""Pushing worlds for tests."""

import functools
from typing import Any

import numpy as np

from tests.helpers.worlds import world_of

make_world = functools.partial(world_of, "pushing-v0", width=32, height=32)


def make_env(**changes: Any) -> Any:
    """Return its environment without the time limit, after a reset."""
    env = make_world(**changes).make().unwrapped
    env.reset(seed=0)
    return env


def put(env: Any, poses: list[tuple[float, float, float]], pusher_x: float = -0.2) -> None:
    """Put objects at poses (N, 3) and the pusher at (pusher_x, 0)."""
    env.table.place(np.array(poses), pusher_x)
    env._look()
