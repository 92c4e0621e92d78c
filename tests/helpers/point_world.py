"""World of a point that walks to a goal: data, evaluation and faults without a simulator.

Nothing here imports torch: worker processes import this file.
"""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from common.settings.schema import CollectSettings
from envs.base import ActionSpec, GoalWorld

DIM, IMAGES, FRAME = 2, (2, 16, 16, 3), (16, 24, 3)
COLLECT = CollectSettings(
    dataset_type="noisy",
    min_action_norm=0.4,
    p_random_action=0.1,
    action_noise=0.1,
    action_noise_smoothing=0.5,
)


@dataclass(frozen=True)
class PointSettings:
    """Settings of the walk, and the trouble in it: "raise", "die", "hang" or "nan".

    Attributes:
        trouble_episode: of an environment, counted from 0.
        trouble_seed: of the episode, instead.
        trouble_step: at which it strikes, counted from 1.
        marks: folder that counts strikes, of which there are at most `times`; without, there is no
            limit.
        quick: whether success ends an episode.
    """

    mode: str = "data_collection"
    trouble: str = ""
    trouble_episode: int = 0
    trouble_seed: int | None = None
    trouble_step: int = 5
    marks: str = ""
    times: int = 1
    quick: bool = False
    step_seconds: float = 0.0


class PointEnv(gym.Env):
    """State: a point that each action moves, with noise from the environment's generator."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (DIM,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (DIM,), np.float32)
    metadata = {"render_modes": []}  # noqa: RUF012 (gymnasium's own convention)

    def __init__(self, settings: PointSettings, pixels: bool = False) -> None:
        self.settings = settings
        self.pixels = pixels
        self.episode = -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.goal = self.np_random.uniform(-1, 1, DIM)
        self.state = self.np_random.uniform(-1, 1, DIM)
        self.episode_seed, self.steps, self.episode = seed, 0, self.episode + 1
        shown = self.subgoal_frame(self.goal) if (options or {}).get("render_goal") else None
        observation, info = self._observe()
        return observation, info | {"state_goal": self.goal, "goal_rendered": shown}

    def step(self, action: np.ndarray):
        self.steps += 1
        time.sleep(self.settings.step_seconds)
        if self._is_troubled():
            self._trouble()
        noise = self.np_random.standard_normal(DIM)
        self.state = self.state + 0.1 * np.asarray(action, np.float64) + 0.001 * noise
        close = bool(np.linalg.norm(self.state - self.goal) < 0.3)
        observation, info = self._observe()
        ends = close and self.settings.quick
        return observation, -1.0 + close, ends, False, info | {"success": close}

    def frame(self) -> np.ndarray:
        return np.full(FRAME, 100, np.uint8)

    def subgoal_frame(self, state: np.ndarray) -> np.ndarray:
        assert state.shape == (DIM,)
        return np.full(FRAME, 200, np.uint8)

    def _observe(self) -> tuple[np.ndarray, dict[str, Any]]:
        info = {"state_obs": self.state.copy(), "qpos": 2 * self.state}
        if self.pixels:
            return self.np_random.integers(0, 256, IMAGES, np.uint8), info
        return self.state.copy(), info

    def _is_troubled(self) -> bool:
        settings = self.settings
        by_episode = settings.trouble_seed is None and self.episode == settings.trouble_episode
        if not settings.trouble or self.steps != settings.trouble_step:
            return False
        return by_episode or self.episode_seed == settings.trouble_seed

    def _trouble(self) -> None:
        if self.settings.marks:
            strikes = len(list(Path(self.settings.marks).iterdir()))
            if strikes >= self.settings.times:
                return
            Path(self.settings.marks, f"{strikes}-{os.getpid()}").touch()
        if self.settings.trouble == "raise":
            raise ZeroDivisionError("the point left the plane")
        if self.settings.trouble == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.settings.trouble == "hang":
            time.sleep(3600)
        if self.settings.trouble == "nan":
            self.state = self.state * np.nan


class PointCollector:
    """Random actions from its own generator."""

    def reset(self, obs: np.ndarray, info: dict[str, Any], rng: np.random.Generator) -> None:
        self.rng = rng

    def act(self, info: dict[str, Any]) -> np.ndarray:
        return self.rng.uniform(-1, 1, DIM).astype(np.float32)

    def observe(self, obs: np.ndarray, info: dict[str, Any]) -> None:
        pass


class PointWorld(GoalWorld):
    """The point walk as a world, whose coordinates are its entities."""

    name = "point-v0"
    section = "point"
    Settings = PointSettings
    packages = ("numpy",)
    metrics = ("success", "episode_reward", "episode_length")
    reward_fields = ("qpos",)
    state_dim = DIM
    actions = ActionSpec(DIM)
    num_entities = DIM
    entity_dim = 1
    max_identities = 5

    def simulator(self, pixels: bool) -> gym.Env:
        return PointEnv(self.settings, pixels)

    def compatible(self, header: Mapping[str, Any]) -> str | None:
        return None

    def dataset_columns(self, pixels: bool) -> dict[str, tuple[tuple[int, ...], str]]:
        columns = {
            "actions": ((DIM,), "float32"),
            "terminals": ((), "bool"),
            "qpos": ((DIM,), "float32"),
            "state_observations": ((DIM,), "float32"),
        }
        return columns | ({"observations": (IMAGES, "uint8")} if pixels else {})

    def qpos_layout(self) -> dict[str, Any]:
        return {"point": [0, DIM]}

    def reward(self, rows: Mapping[str, Any], goals: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def state_entities(self, state: Any) -> Any:
        return state[..., None]

    def entities_state(self, entities: Any) -> Any:
        return entities[..., 0]

    def collector(self, env: gym.Env, settings: CollectSettings) -> PointCollector:
        return PointCollector()

    def summarise(
        self, history: Sequence[Mapping[str, Any]], rewards: Sequence[float]
    ) -> dict[str, float]:
        success, length = float(history[-1]["success"]), float(len(history))
        return {"success": success, "episode_reward": sum(rewards), "episode_length": length}


class NearPointWorld(PointWorld):
    """The same, stepped in the process itself."""

    in_process = True


def point_world(
    max_episode_steps: int = 30, kind: type[PointWorld] = PointWorld, **settings: Any
) -> PointWorld:
    """A world of a point with the given `PointSettings`."""
    return kind(PointSettings(**settings), max_episode_steps=max_episode_steps)
