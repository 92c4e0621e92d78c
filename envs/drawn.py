"""Worlds whose frames a graphics driver draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envs.base import GoalWorld


class DrawnWorld(GoalWorld):
    """World that records `qpos`, states and frames.

    Its settings have `width` and `height` of frames, and `render_quality`, which data with frames
    must share.
    """

    def compatible(self, header: Mapping[str, Any]) -> str | None:
        if problem := super().compatible(header):
            return problem
        drawn = header["settings"]["render_quality"]
        if header.get("pixels") and drawn != self.settings.render_quality:
            key = f"env_kwargs.{self.section}.render_quality"
            return f"its frames were drawn with {key}={drawn}; set the same"
        return None

    def dataset_columns(self, pixels: bool) -> dict[str, tuple[tuple[int, ...], str]]:
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
