"""The cube world, PPP-Cube and Stack-Cube, without its simulator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from envs.manipobj import modes, rules
from envs.tabletop import table
from envs.tabletop.statistics import statistics
from envs.tabletop.world import TabletopWorld

if TYPE_CHECKING:
    from torch import Tensor


class ManipObj(TabletopWorld):
    """One to six cubes and a robot arm. Raises `UserError` where `modes.make_mode` does."""

    name = "manipobj-v0"
    section = "manipobj"
    Settings = modes.ManipObjSettings
    dataset = "ppp-cube-noisy-v0"
    environment = "envs.manipobj.env:ManipObjEnv"
    policies = "envs.manipobj.policies:ManipObjCollector"

    def __init__(
        self, settings: modes.ManipObjSettings, *, max_episode_steps: int, multiview: bool = False
    ) -> None:
        self.collect_mode = modes.make_mode(settings).collection
        super().__init__(settings, max_episode_steps=max_episode_steps, multiview=multiview)
        self.state_dim = table.AGENT_DIM + table.CUBE_DIM * self.num_cubes
        self.entity_dim = table.AGENT_DIM
        self.max_identities = table.MAX_IDENTITIES
        self.entity_names = table.entity_names(self.num_cubes)

    def qpos_layout(self) -> dict[str, Any]:
        return table.qpos_layout(table.cube_columns(self.num_cubes))

    def reward(self, rows: Mapping[str, Tensor], goals: Mapping[str, Tensor]) -> Tensor:
        """Return the reward (B,) float32 for `qpos` (B, 14 + 7 N) of rows and goals.

        The same formulas as the environment's own reward, see `rules.reward`; in mode `task_sort`
        too, whose own is laxer (as in the reference).
        """
        xyz = (table.cube_positions(each["qpos"], self.num_cubes) for each in (rows, goals))
        distance = table.distances(*xyz)
        return rules.reward(distance, self.settings.reward_mode, self.settings.reward_scale)

    def statistics(
        self, columns: Mapping[str, np.ndarray], lengths: np.ndarray
    ) -> dict[str, float]:
        """Return figures on actions, moving and stacked cubes and the robot, see `statistics`."""
        return super().statistics(columns, lengths) | statistics(columns, lengths, self.num_cubes)

    def replay(self, env: gym.Env, row: Mapping[str, np.ndarray]) -> np.ndarray:
        """Draw a stored `qpos`; the cubes' colours are not stored, so they are others."""
        env.unwrapped.set_state(row["qpos"], np.zeros(env.unwrapped.model.nv))
        return env.unwrapped.frame()

    def entity_positions(self, state: Tensor) -> Tensor:
        """Return the cubes' positions (..., N, 3)."""
        return self._split(state)[1][..., :3]
