"""A world of two numbers, its observation and a deterministic agent: evaluation without MuJoCo.

Nothing here imports torch at module level: worker processes import this file.
"""

import math
import os
import time
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from envs.base import ActionSpec

FRAME = (16, 24, 3)


class PointEnv(gym.Env):
    """A point moves to a goal; `trouble` makes one episode (told by its seed) misbehave."""

    metadata = {"render_modes": []}  # noqa: RUF012 (gymnasium's own convention)

    def __init__(self, trouble: dict[int, str], quick: bool) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.trouble = trouble
        self.quick = quick

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.kind = self.trouble.get(seed)
        self.goal = self.np_random.uniform(-1, 1, 2)
        self.state = self.np_random.uniform(-1, 1, 2)
        shown = self.subgoal_frame(self.goal) if (options or {}).get("render_goal") else None
        info = {"state_obs": self.state, "state_goal": self.goal, "goal_rendered": shown}
        return self.state, info

    def step(self, action: np.ndarray):
        if self.kind == "raise":
            raise ValueError("the point fell off the plane")
        if self.kind == "die":
            os._exit(7)
        if self.kind == "hang":
            time.sleep(3600)
        noise = self.np_random.normal(size=2)
        self.state = self.state + 0.1 * np.asarray(action, np.float64) + 0.01 * noise
        close = bool(np.linalg.norm(self.state - self.goal) < 0.3)
        info = {"state_obs": self.state, "success": close, "pid": os.getpid()}
        return self.state, -1.0 + close, close and self.quick, False, info

    def frame(self) -> np.ndarray:
        return np.full(FRAME, 100, np.uint8)

    def subgoal_frame(self, state: np.ndarray) -> np.ndarray:
        assert state.shape == (2,)
        return np.full(FRAME, 200, np.uint8)


@dataclass
class PointWorld:
    """What evaluation needs of a world; `trouble` maps an episode's seed to a misbehaviour."""

    max_episode_steps: int = 12
    quick: bool = False  # whether success ends an episode
    trouble: dict[int, str] = field(default_factory=dict)
    in_process: bool = False
    metrics = ("success", "episode_reward", "episode_length")
    actions = ActionSpec(2)
    num_entities = 2
    entity_dim = 1
    max_identities = 5
    identifies_entities = False
    needs_opengl = True

    def observation_problem(self, kind: str, pixels: bool) -> str | None:
        return None

    def make(self, pixels: bool = False) -> gym.Env:
        env = PointEnv(self.trouble, self.quick)
        return gym.wrappers.TimeLimit(env, max_episode_steps=self.max_episode_steps)

    def state_entities(self, state):
        return state[..., None]

    def entities_state(self, entities):
        return entities[..., 0]

    def summarise(self, history: list[dict], rewards: list[float]) -> dict[str, float]:
        success = float(history[-1]["success"])
        length = float(len(history))
        return {"success": success, "episode_reward": sum(rewards), "episode_length": length}


class FakeAgent:
    """What evaluation asks of an agent besides `act`; it remembers what it pursues."""

    def begin(self, goal):
        from tensordict import TensorDict

        return TensorDict({"pursued": goal})

    def pursued(self, memory, goal):
        return memory["pursued"]


class PointAgent(FakeAgent):
    """Steers to a subgoal half-way to the goal, chosen every five steps, with noise of its own."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        import torch

        size = 2 * math.prod(shape)
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.randn(size, 2, generator=generator) / size
        self.largest = 0

    def act(self, timestep):
        import torch

        obs, memory = timestep.obs, timestep.memory.clone()
        self.largest = max(self.largest, len(obs))
        halfway, new = (obs + timestep.goal) / 2, timestep.step % 5 == 0
        pursued = torch.where(new.view(-1, 1, 1), halfway, memory["pursued"])
        memory["pursued"] = pursued
        noise = torch.stack([torch.rand(2, generator=g) for g in timestep.generators])
        joined = torch.cat([obs.flatten(1), pursued.flatten(1)], dim=-1)
        mixed = torch.stack([row @ self.weight for row in joined])  # one product per row
        steer = (pursued[..., 0] - obs[..., 0]) + mixed
        return (steer + 0.1 * noise).clamp(-1, 1), memory
