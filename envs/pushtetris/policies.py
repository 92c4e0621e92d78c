"""The scripted policy that collects Push-Tetris data: random moves around one piece at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from common.foundation.errors import UserError
from common.settings.schema import CollectSettings
from envs.pushtetris import rules

if TYPE_CHECKING:
    from envs.pushtetris.env import PushTetrisEnv


class ConstrainedRandom:
    """Uniformly random moves that stay within 100 units of the environment's target piece.

    The policy is random by itself: no noise is added, whatever the settings say of it. Raises
    `UserError` for play data.
    """

    def __init__(self, env: PushTetrisEnv, settings: CollectSettings) -> None:
        if settings.dataset_type != "noisy":
            raise UserError(
                f"dataset_type={settings.dataset_type} is not possible with pushtetris-v0, "
                "whose one policy is random; leave dataset_type=noisy"
            )

    def reset(self, obs: np.ndarray, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Start an episode."""
        self._rng = rng

    def act(self, info: dict[str, Any]) -> np.ndarray:
        """Return the action (2,) float32: a random point, brought near the target piece."""
        agent, piece = info["pos_agent"], info["block_pose"][info["target_block"], :2]
        point = agent + rules.ACTION_UNITS * self._rng.uniform(-1, 1, 2)
        point = np.clip(point, piece - rules.ACTION_UNITS, piece + rules.ACTION_UNITS)
        return np.clip((point - agent) / rules.ACTION_UNITS, -1, 1).astype(np.float32)

    def observe(self, obs: np.ndarray, info: dict[str, Any]) -> None:
        """Nothing to follow: each action depends on the present alone."""
