"""The cube world, PPP-Cube and Stack-Cube, without its simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from common.settings.schema import setting
from envs.manipobj import modes, rules
from envs.rendering import QUALITIES
from envs.tabletop import table
from envs.tabletop.statistics import statistics
from envs.tabletop.world import TabletopWorld

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ManipObjSettings:
    """Section `env_kwargs.manipobj`."""

    mode: str = setting(choices=tuple(modes.MODES))
    reward_mode: str = setting(choices=rules.REWARD_MODES)
    num_cubes: int = setting(low=0, high=rules.MAX_CUBES)  # 0: not chosen yet
    num_colors: int = setting(low=1, high=len(table.PALETTE))
    p_push: float = setting(low=0.0, high=1.0)
    p_stack: float | None = setting(low=0.0, high=1.0)
    random_colors: bool = setting()
    reward_scale: float = setting()
    visualize_info: bool = setting()
    terminate_at_goal: bool = setting()
    width: int = setting(low=1)
    height: int = setting(low=1)
    render_quality: str = setting(choices=tuple(QUALITIES), identity=False)  # the data's, if images


class ManipObj(TabletopWorld):
    """One to six cubes and a robot arm. Raises `UserError` where `modes.make_mode` does."""

    name = "manipobj-v0"
    section = "manipobj"
    Settings = ManipObjSettings
    dataset = "ppp-cube-noisy-v0"
    environment = "envs.manipobj.env:ManipObjEnv"
    policies = "envs.manipobj.policies:ManipObjCollector"

    def __init__(
        self, settings: ManipObjSettings, *, max_episode_steps: int, multiview: bool = False
    ) -> None:
        self.collect_mode = modes.make_mode(settings).collection
        super().__init__(settings, max_episode_steps=max_episode_steps, multiview=multiview)
        self.state_dim = table.AGENT_DIM + table.CUBE_DIM * self.num_cubes
        self.num_entities = self.num_cubes + 1
        self.entity_dim = table.AGENT_DIM
        self.max_identities = table.MAX_IDENTITIES
        self.entity_names = ("agent", *(f"cube_{i}" for i in range(self.num_cubes)))

    def qpos_layout(self) -> dict[str, Any]:
        return table.qpos_layout(table.cube_columns(self.num_cubes))

    def reward(self, rows: Mapping[str, Tensor], goals: Mapping[str, Tensor]) -> Tensor:
        """Return the reward (B,) float32 for `qpos` (B, 14 + 7 N) of rows and goals.

        The same formulas as the environment's own reward, see `rules.reward`; in mode `task_sort`
        too, whose own is laxer (as in the reference).
        """
        distance = table.distances(self._cubes(rows["qpos"]), self._cubes(goals["qpos"]))
        return rules.reward(distance, self.settings.reward_mode, self.settings.reward_scale)

    def _cubes(self, qpos: Tensor) -> Tensor:
        """Return the cube positions (..., N, 3) of qpos (..., 14 + 7 N)."""
        poses = qpos[..., table.ROBOT_JOINTS :].unflatten(-1, (self.num_cubes, table.CUBE_JOINTS))
        return poses[..., :3]

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
