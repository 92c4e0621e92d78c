"""The promises that environments keep to whoever uses them as Gymnasium's."""

from __future__ import annotations

import copy
from typing import Any, NoReturn, Self

import gymnasium as gym
import numpy as np


class Absent:
    """An attribute of a base class that objects of a class do not have."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise AttributeError(f"{owner.__name__} has no {self._name}")


class Environment(gym.Env):
    """Checks before steps, frames only where they are asked for, no wrong copies.

    Derive from it and, after it, from the simulator's class; `_advance` and `_draw` are its `step`
    and `render`. It cannot be copied or pickled unless a derived class says how.

    Differs from OGBench: there, a step before the first `reset` is a reset.
    """

    compute_reward = Absent()  # OGBench has one, by which others know goal environments
    _reset_next_step = True  # OGBench's name: no episode has begun

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Seed the environment; a derived class starts an episode then."""
        started = super().reset(seed=seed, options=options)
        self._reset_next_step = False
        return started

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Apply one action for one control step; the time limit truncates, not this.

        Raises `gymnasium.error.ResetNeeded` before the first reset, and `ValueError` for an action
        of another shape or with numbers that are not finite.
        """
        if self._reset_next_step:
            raise gym.error.ResetNeeded("call reset before the first step")
        check_action(action, self.action_space.shape)
        return self._advance(action)

    def render(self, *args: Any, **kwargs: Any) -> np.ndarray | None:
        """Draw a frame (height, width, 3) uint8 with `render_mode="rgb_array"`; else warn."""
        if self.render_mode != "rgb_array":
            gym.logger.warn(
                "You are calling render method without specifying any render mode. "
                'You can specify the render_mode at initialization: render_mode="rgb_array"'
            )
            return None
        return self._draw(*args, **kwargs)

    def __copy__(self) -> Self:
        """Return a copy that shares no state with this one."""
        return copy.deepcopy(self)

    def __getstate__(self) -> Any:
        raise TypeError(
            f"{type(self).__name__} cannot be copied or pickled; make another from its world, "
            "reset it with the same seed and repeat the actions"
        )


def check_action(action: Any, shape: tuple[int, ...] | None) -> None:
    """Raise `ValueError` for an action that is not of `shape`, or not of finite numbers."""
    numbers = np.asarray(action)
    if numbers.shape != shape:
        raise ValueError(f"an action has the shape {shape}, this one {numbers.shape}")
    if numbers.dtype.kind not in "biuf" or not np.isfinite(numbers).all():
        raise ValueError(f"an action is of finite numbers, this one is {numbers.tolist()}")
