"""The noisy agent that collects data on the table: one scripted policy per kind of target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from common.settings.schema import CollectSettings

# The yaw and gripper noise are larger; OGBench has 10 for the gripper.
NOISE_SHAPE = np.array([1.0, 1.0, 1.0, 3.0, 5.0])


class ScriptedCollector(ABC):
    """Runs the policy that the environment's target asks for, disturbed by noise.

    As in the published data, the first action after a new target still aims at the old one (it is
    computed from the info of the last step), and an episode's first target is drawn with p_stack
    0.5, whatever the episode's value. Differs from the reference: random actions come from `rng`.

    Args:
        policies: by the `privileged/target_task` of the environment's info.
    """

    def __init__(self, env: Any, settings: CollectSettings, policies: Mapping[str, Any]) -> None:
        self._env = env
        self._settings = settings
        self._policies = policies

    def draw_p_stack(self) -> float:
        """Draw an episode's probability of building on other cubes, from `self._rng`."""
        return 0.5

    @abstractmethod
    def reset_policy(self, info: dict[str, Any]) -> None:
        """Start `self._policy` on a new target; draws come from `self._rng`."""

    def reset(self, obs: np.ndarray, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Start an episode: its noise scale, and the policy of its first target."""
        self._rng = rng
        self._p_stack = self.draw_p_stack()
        noise = 0.0 if self._settings.dataset_type == "play" else self._settings.action_noise
        self._noise = rng.uniform(0, noise) * NOISE_SHAPE
        self._obs = obs
        self._start_policy(info)

    def _start_policy(self, info: dict[str, Any]) -> None:
        self._policy = self._policies[info["privileged/target_task"]]
        self.reset_policy(info)

    def act(self, info: dict[str, Any]) -> np.ndarray:
        """Return the action (5,) float32. A random one does not advance the policy."""
        if self._rng.uniform() < self._settings.p_random_action:
            return self._rng.uniform(-1, 1, 5).astype(np.float32)
        action = self._policy.select_action(self._obs, info) + self._rng.normal(0, self._noise)
        return np.clip(action, -1, 1).astype(np.float32)

    def observe(self, obs: np.ndarray, info: dict[str, Any]) -> None:
        """Follow one environment step; a finished policy makes room for the next target."""
        self._obs = obs
        if self._policy.done:
            self._env.set_new_target(return_info=False, p_stack=self._p_stack)
            self._start_policy(self._env.get_reset_info())
