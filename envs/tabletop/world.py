"""Worlds on the robot's table, without their simulator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym

from common.foundation.registry import load
from envs.base import ActionSpec
from envs.drawn import DrawnWorld
from envs.tabletop.table import AGENT_DIM, CUBE_DIM

if TYPE_CHECKING:
    from torch import Tensor


class TabletopWorld(DrawnWorld):
    """Robot arm and N cubes; entity 0 is the arm.

    States and entities begin with arm and cubes; a world with other objects adds them behind.
    """

    of_data = ("num_cubes",)
    packages = ("ogbench", "mujoco", "dm_control", "gymnasium", "numpy")
    metrics = ("success", "success_frac", "episode_reward", "episode_length", "interaction_rate")
    reward_fields = ("qpos",)
    actions = ActionSpec(5)

    def __init__(self, settings: Any, *, max_episode_steps: int, multiview: bool = False) -> None:
        super().__init__(settings, max_episode_steps=max_episode_steps, multiview=multiview)
        self.num_cubes: int = settings.num_cubes

    def collect_overrides(self) -> list[str]:
        section, mode = f"env_kwargs.{self.section}", self.collect_mode
        overrides = [f"{section}.mode={mode}", f"{section}.num_cubes={self.num_cubes}"]
        return [*super().collect_overrides(), *overrides]

    def simulator(self, pixels: bool) -> gym.Env:
        return load(self.environment)(
            self.settings,
            ob_type="pixels" if pixels else "states_clean",
            multiview=self.multiview,
            render_mode="rgb_array",
        )

    def state_entities(self, state: Tensor) -> Tensor:
        """Turn states (..., S) into rows (..., E, F); what a kind has not is zero."""
        entities = state.new_zeros((*state.shape[:-1], self.num_entities, self.entity_dim))
        arm, cubes, _ = self._split(state)
        entities[..., 0, :AGENT_DIM] = arm
        entities[..., 1 : 1 + self.num_cubes, :CUBE_DIM] = cubes
        return entities

    def entities_state(self, entities: Tensor) -> Tensor:
        """Turn rows (..., E, F) back into states (..., S); what a kind has not is dropped."""
        state = entities.new_empty((*entities.shape[:-2], self.state_dim))
        arm, cubes, _ = self._split(state)
        arm[:] = entities[..., 0, :AGENT_DIM]
        cubes[:] = entities[..., 1 : 1 + self.num_cubes, :CUBE_DIM]
        return state

    def _split(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return arm (..., 6), cubes (..., N, 5) and the rest of states, as views."""
        end = AGENT_DIM + CUBE_DIM * self.num_cubes
        cubes = state[..., AGENT_DIM:end].unflatten(-1, (self.num_cubes, CUBE_DIM))
        return state[..., :AGENT_DIM], cubes, state[..., end:]
