"""The simulated table of the cube world: OGBench's robot with heavier cubes, and its cameras."""

from __future__ import annotations

from typing import Any

from envs import manipobj_rules as rules
from envs.rendering import without_backend
from envs.tabletop import Tabletop

with without_backend():
    from ogbench.manipspace.envs.cube_env import CubeEnv

CAMERAS = {  # position in the world, and the camera's x and y axes
    "side_pixels": ((0.414, -0.753, 0.639), (1, 0, 0, -0.001, 0.628, 0.778)),
    "side_pixels_stack": ((0.400, -0.987, 0.509), (1, 0, 0, 0.000, 0.342, 0.940)),
}


class CubeScene(Tabletop, CubeEnv):
    """Robot, table and N cubes, without episodes; arguments of `Tabletop`."""

    def __init__(self, num_cubes: int, cameras: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(num_cubes, cameras, env_type="single", **kwargs)

    def add_objects(self, arena_mjcf: Any) -> None:
        """Add OGBench's cubes with this benchmark's density, and the side cameras."""
        super().add_objects(arena_mjcf)
        for geoms in self._cube_geoms_list:
            for geom in geoms:
                geom.density = rules.CUBE_DENSITY
        for name, (position, axes) in CAMERAS.items():
            arena_mjcf.worldbody.add("camera", name=name, pos=position, xyaxes=axes)

    def compile_model_and_data(self) -> None:
        """Take the model that all cube environments of this make in the process share."""
        self._share_model(CubeScene)
