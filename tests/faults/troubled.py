"""A world whose trouble passes. Nothing here imports torch: worker processes import this file."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import gymnasium as gym
import numpy as np

from tests.helpers import fake_world


class TroubledEnv(fake_world.PointEnv):
    """The first environments that come to the troubled episode misbehave, `times` in all."""

    def __init__(self, world: "TroubledWorld") -> None:
        super().__init__(world.trouble, world.quick)
        self.world = world

    def step(self, action: np.ndarray):
        if self.kind is not None:
            strikes = len(list(Path(self.world.marks).iterdir()))
            if strikes < self.world.times:
                Path(self.world.marks, f"{strikes}-{os.getpid()}").touch()
            else:
                self.kind = None
        return super().step(action)


@dataclass
class TroubledWorld(fake_world.PointWorld):
    """A world whose trouble passes; `marks` is a folder that counts."""

    marks: str = ""
    times: int = 1
    trouble: dict[int, str] = field(default_factory=dict)

    def make(self, pixels: bool = False) -> gym.Env:
        return gym.wrappers.TimeLimit(TroubledEnv(self), max_episode_steps=self.max_episode_steps)
