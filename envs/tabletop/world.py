"""What the worlds on the robot's table share, without a simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium as gym

from common.foundation.registry import load
from envs.base import ActionSpec, GoalWorld


class TabletopWorld(GoalWorld):
    """Robot arm and `num_cubes` cubes; entity 0 is the arm."""

    environment: ClassVar[str]  # its gymnasium class, `"module:Class"`
    packages = ("ogbench", "mujoco", "dm_control", "gymnasium", "numpy")
    metrics = ("success", "success_frac", "episode_reward", "episode_length", "interaction_rate")
    reward_fields = ("qpos",)
    actions = ActionSpec(5)

    def __init__(self, settings: Any, *, max_episode_steps: int, multiview: bool = False) -> None:
        super().__init__(settings, max_episode_steps=max_episode_steps, multiview=multiview)
        self.num_cubes: int = settings.num_cubes

    def collect_mode(self) -> str:
        """Return the mode that collects data for this world."""
        return "data_collection"

    def collect_overrides(self) -> list[str]:
        """Return the settings of `collect.py`, as overrides, that make data for this world."""
        section, mode = f"env_kwargs.{self.section}", self.collect_mode()
        overrides = [f"{section}.mode={mode}", f"{section}.num_cubes={self.num_cubes}"]
        return [*super().collect_overrides(), *overrides]

    def environment_arguments(self) -> dict[str, Any]:
        """Return the settings that are the environment's."""
        return dict(vars(self.settings))

    def simulator(self, pixels: bool) -> gym.Env:
        """Return the environment; observations are images if `pixels`, else `states_clean`."""
        return load(self.environment)(  # imports the simulator
            **self.environment_arguments(),
            ob_type="pixels" if pixels else "states_clean",
            multiview=self.multiview,
            render_mode="rgb_array",
        )

    def compatible(self, header: Mapping[str, Any]) -> str | None:
        """Return None if data with this header fits, else what differs, in one line."""
        if header["environment"] != self.name:
            return f"the data is of environment {header['environment']}, not of {self.name}"
        cubes = header["settings"]["num_cubes"]
        if cubes != self.num_cubes:
            return (
                f"the data has {cubes} cubes (num_cubes={cubes}), "
                f"this environment {self.num_cubes} (num_cubes={self.num_cubes})"
            )
        drawn = header["settings"]["render_quality"]
        if header.get("pixels") and drawn != self.settings.render_quality:
            key = f"env_kwargs.{self.section}.render_quality"
            return f"its frames were drawn with {key}={drawn}; set the same"
        return None

    def dataset_columns(self, pixels: bool) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and type of one row of every stored column."""
        positions = max(end for _, end in self.qpos_layout().values())
        columns = {
            "actions": ((self.actions.size,), "float32"),
            "terminals": ((), "bool"),
            "qpos": ((positions,), "float32"),
            "state_observations": ((self.state_dim,), "float32"),
        }
        if pixels:
            image = (self.settings.height, self.settings.width, 3)
            columns["observations"] = ((2, *image) if self.multiview else image, "uint8")
        return columns

    def summarise(
        self, history: Sequence[Mapping[str, Any]], rewards: Sequence[float]
    ) -> dict[str, float]:
        """Reduce one episode to `metrics`; success is that of the last step."""
        last = history[-1]
        moved = [bool(info["was_agent_object_interaction"]) for info in history]
        return {
            "success": float(last["success"]),
            "success_frac": float(last["success_frac"]),
            "episode_reward": float(sum(rewards)),
            "episode_length": float(len(rewards)),
            "interaction_rate": sum(moved) / len(moved),
        }
