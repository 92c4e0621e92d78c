"""The cube world, PPP-Cube and Stack-Cube, without its simulator.

Settings, rewards of stored rows, entities, metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from common.settings.schema import CollectSettings, setting
from envs.base import Collector
from envs.manipobj import modes, rules
from envs.rendering import QUALITIES
from envs.tabletop import table
from envs.tabletop.statistics import statistics
from envs.tabletop.world import TabletopWorld

if TYPE_CHECKING:
    from torch import Tensor

ROBOT_JOINTS = 14  # columns of qpos before the first cube: six of the arm, eight of the gripper
CUBE_JOINTS = 7  # columns of qpos per cube: xyz, quaternion wxyz


@dataclass(frozen=True)
class ManipObjSettings:
    """Section `env_kwargs.manipobj`; see `envs.manipobj.env.ManipObjEnv`."""

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
    """One to six cubes and a robot arm; entity 0 is the arm.

    Raises:
        UserError: for a number of cubes outside 1 to 6, an unknown mode or reward mode, or more
            colours than `task_sort` has spots for.
    """

    name = "manipobj-v0"
    section = "manipobj"
    Settings = ManipObjSettings
    dataset = "ppp-cube-noisy-v0"
    environment = "envs.manipobj.env:ManipObjEnv"

    def __init__(
        self, settings: ManipObjSettings, *, max_episode_steps: int, multiview: bool = False
    ) -> None:
        rules.check_reward_mode(settings.reward_mode)
        numbers = settings.num_cubes, settings.num_colors, settings.p_push, settings.p_stack
        self._law = modes.make_mode(settings.mode, *numbers)
        super().__init__(settings, max_episode_steps=max_episode_steps, multiview=multiview)
        self.state_dim = table.AGENT_DIM + table.CUBE_DIM * self.num_cubes
        self.num_entities = self.num_cubes + 1
        self.entity_dim = table.AGENT_DIM
        self.max_identities = table.MAX_IDENTITIES
        self.entity_names = ("agent", *(f"cube_{i}" for i in range(self.num_cubes)))

    def collect_mode(self) -> str:
        """Return the mode that collects data for this world."""
        return self._law.collection

    def qpos_layout(self) -> dict[str, Any]:
        """Return the columns of qpos by name: arm and gripper joints, then pose by pose."""
        layout: dict[str, Any] = {"arm": [0, 6], "gripper": [6, ROBOT_JOINTS]}
        for i in range(self.num_cubes):
            start = ROBOT_JOINTS + CUBE_JOINTS * i
            layout[f"cube_{i}_xyz"] = [start, start + 3]
            layout[f"cube_{i}_quaternion_wxyz"] = [start + 3, start + CUBE_JOINTS]
        return layout

    def reward(self, rows: Mapping[str, Tensor], goals: Mapping[str, Tensor]) -> Tensor:
        """Return the reward (B,) float32 for `qpos` (B, 14 + 7 N) of rows and goals.

        The same formulas as the environment's own reward, see `rules.reward`; in mode `task_sort`
        too, whose own is laxer (as in the reference).
        """
        distance = table.distances(self._cubes(rows["qpos"]), self._cubes(goals["qpos"]))
        return rules.reward(distance, self.settings.reward_mode, self.settings.reward_scale)

    def _cubes(self, qpos: Tensor) -> Tensor:
        """Return the cube positions (..., N, 3) of qpos (..., 14 + 7 N)."""
        poses = qpos[..., ROBOT_JOINTS:].unflatten(-1, (self.num_cubes, CUBE_JOINTS))
        return poses[..., :3]

    def state_entities(self, state: Tensor) -> Tensor:
        """Turn states (..., 6 + 5 N) into rows (..., N + 1, 6); cubes get a last column of zero."""
        entities = state.new_zeros((*state.shape[:-1], self.num_entities, self.entity_dim))
        agent, cubes = state[..., : table.AGENT_DIM], state[..., table.AGENT_DIM :]
        entities[..., 0, :] = agent
        cubes = cubes.unflatten(-1, (self.num_cubes, table.CUBE_DIM))
        entities[..., 1:, : table.CUBE_DIM] = cubes
        return entities

    def entities_state(self, entities: Tensor) -> Tensor:
        """Turn rows (..., N + 1, 6) back into states (..., 6 + 5 N); the padding is dropped."""
        state = entities.new_empty((*entities.shape[:-2], self.state_dim))
        state[..., : table.AGENT_DIM] = entities[..., 0, :]
        state[..., table.AGENT_DIM :] = entities[..., 1:, : table.CUBE_DIM].flatten(-2)
        return state

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
        """Return the cubes' positions (..., N, 3), scaled, in states (..., 6 + 5 N)."""
        cubes = state[..., table.AGENT_DIM :].unflatten(-1, (self.num_cubes, table.CUBE_DIM))
        return cubes[..., :3]

    def collector(self, env: gym.Env, settings: CollectSettings) -> Collector:
        """Return the scripted pick-and-place and push agent; the mode must be a collection."""
        from envs.manipobj.policies import ManipObjCollector

        return ManipObjCollector(env.unwrapped, settings)
