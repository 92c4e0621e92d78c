"""A world without goals, with discrete actions: cells in a row, and a reward in the last one."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from common.settings.schema import CollectSettings
from envs.base import ActionSpec, World

CELLS = 6
MOVES = {-1: 0, 0: -1, 1: 1}  # by Gymnasium's action: stay, left, right


@dataclass(frozen=True)
class CorridorSettings:
    """The world has no settings but its mode."""

    mode: str = "data_collection"


class CorridorEnv(gym.Env):
    """Starts in a random cell; an action that is no integer of its space is an error."""

    observation_space = gym.spaces.Box(0, CELLS - 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(len(MOVES), start=-1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.cell = int(self.np_random.integers(CELLS))
        return self._observe()

    def step(self, action: int):
        assert self.action_space.contains(action)
        self.cell = min(max(self.cell + MOVES[action], 0), CELLS - 1)
        observation, info = self._observe()
        return observation, float(self.cell == CELLS - 1), False, False, info

    def _observe(self) -> tuple[np.ndarray, dict[str, Any]]:
        state = np.array([self.cell], np.float32)
        return state, {"state_obs": state}


class CorridorCollector:
    """Uniformly random one-hot rows."""

    def reset(self, obs: np.ndarray, info: dict[str, Any], rng: np.random.Generator) -> None:
        self.rng = rng

    def act(self, info: dict[str, Any]) -> np.ndarray:
        return np.eye(len(MOVES), dtype=np.float32)[self.rng.integers(len(MOVES))]

    def observe(self, obs: np.ndarray, info: dict[str, Any]) -> None:
        pass


class CorridorWorld(World):
    """The corridor as a `World`; how much reward an episode gathers is its headline."""

    name = "corridor-v0"
    section = "corridor"
    Settings = CorridorSettings
    dataset = "corridor-noisy-v0"
    packages = ("gymnasium",)
    metrics = ("episode_reward", "episode_length")
    headline = "episode_reward"
    in_process = True
    actions = ActionSpec(len(MOVES), discrete=True)
    state_dim = 1

    def simulator(self, pixels: bool) -> gym.Env:
        return CorridorEnv()

    def dataset_columns(self, pixels: bool) -> dict[str, tuple[tuple[int, ...], str]]:
        return {
            "actions": ((self.actions.size,), "float32"),
            "terminals": ((), "bool"),
            "state_observations": ((self.state_dim,), "float32"),
        }

    def collector(self, env: gym.Env, settings: CollectSettings) -> CorridorCollector:
        return CorridorCollector()


def corridor_world(max_episode_steps: int = 12) -> CorridorWorld:
    """A corridor."""
    return CorridorWorld(CorridorSettings(), max_episode_steps=max_episode_steps)
