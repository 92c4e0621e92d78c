"""A tiny world for tests of the data path: a noisy walk of a point, as a gymnasium environment."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from common.settings.schema import CollectSettings
from envs.base import ActionSpec, World

STATE_DIM, ACTION_DIM, FRAME = 3, 2, (2, 16, 16, 3)
COLLECT = CollectSettings(
    dataset_type="noisy",
    min_action_norm=0.4,
    p_random_action=0.1,
    action_noise=0.1,
    action_noise_smoothing=0.5,
)


@dataclass(frozen=True)
class PointSettings:
    """`trouble` strikes in an environment's episode `trouble_episode`.

    It is "raise", "die", "hang" or "nan".
    """

    mode: str = "data_collection"
    trouble: str = ""
    trouble_episode: int = 0
    step_seconds: float = 0.0


class PointEnv(gym.Env):
    """State: a point that each action moves, with noise from the environment's generator."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (STATE_DIM,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (ACTION_DIM,), np.float32)

    def __init__(self, settings: PointSettings, pixels: bool) -> None:
        self.settings = settings
        self.pixels = pixels
        self.episode = -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.state = self.np_random.standard_normal(STATE_DIM)
        self.steps = 0
        self.episode += 1
        return self._observe()

    def step(self, action: np.ndarray):
        self.steps += 1
        time.sleep(self.settings.step_seconds)
        self._trouble()
        self.state = self.state + 0.01 * self.np_random.standard_normal(STATE_DIM)
        self.state[:ACTION_DIM] += action
        observation, info = self._observe()
        return observation, 0.0, False, False, info

    def _observe(self) -> tuple[np.ndarray, dict[str, Any]]:
        observation = self.state.copy()
        info = {"state_obs": self.state.copy(), "qpos": 2 * self.state}
        if self.pixels:
            observation = self.np_random.integers(0, 256, FRAME, np.uint8)
        return observation, info

    def _trouble(self) -> None:
        if self.episode != self.settings.trouble_episode or self.steps != 5:
            return
        if self.settings.trouble == "raise":
            raise ZeroDivisionError("the point left the plane")
        if self.settings.trouble == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.settings.trouble == "hang":
            time.sleep(3600)
        if self.settings.trouble == "nan":
            self.state[0] = np.nan


class PointCollector:
    """Random actions from its own generator."""

    def reset(self, obs: np.ndarray, info: dict[str, Any], rng: np.random.Generator) -> None:
        self.rng = rng

    def act(self, info: dict[str, Any]) -> np.ndarray:
        return self.rng.uniform(-1, 1, ACTION_DIM).astype(np.float32)

    def observe(self, obs: np.ndarray, info: dict[str, Any]) -> None:
        pass


class PointWorld(World):
    """The point walk as a `World`."""

    name = "point-v0"
    section = "point"
    Settings = PointSettings
    packages = ("numpy",)
    metrics = ("success",)
    state_dim = STATE_DIM
    actions = ActionSpec(ACTION_DIM)

    def simulator(self, pixels: bool) -> gym.Env:
        return PointEnv(self.settings, pixels)

    def compatible(self, header: Mapping[str, Any]) -> str | None:
        return None

    def dataset_columns(self, pixels: bool) -> dict[str, tuple[tuple[int, ...], str]]:
        columns = {
            "actions": ((ACTION_DIM,), "float32"),
            "terminals": ((), "bool"),
            "qpos": ((STATE_DIM,), "float32"),
            "state_observations": ((STATE_DIM,), "float32"),
        }
        return columns | ({"observations": (FRAME, "uint8")} if pixels else {})

    def qpos_layout(self) -> dict[str, Any]:
        return {"point": [0, STATE_DIM]}

    def collector(self, env: gym.Env, settings: CollectSettings) -> PointCollector:
        return PointCollector()

    def summarise(
        self, history: Sequence[Mapping[str, Any]], rewards: Sequence[float]
    ) -> dict[str, float]:
        raise NotImplementedError


def point_world(max_episode_steps: int = 30, **settings: Any) -> PointWorld:
    """A point world with the given `PointSettings`."""
    return PointWorld(PointSettings(**settings), max_episode_steps=max_episode_steps)
