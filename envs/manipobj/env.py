"""The cube environment `manipobj-v0`: OGBench's, with heavier cubes and its own episodes.

Robot, control, physics and observation vector are OGBench's `CubeEnv`; density of the cubes, start,
goal, success, reward and cameras follow the HECRL benchmark (`envs/manipobj/rules.py`, and by mode
`envs/manipobj/modes.py`).
"""

from __future__ import annotations

from typing import Any

from envs.manipobj import modes, rules
from envs.rendering import without_backend
from envs.tabletop import table
from envs.tabletop.simulation import Tabletop

with without_backend():
    from ogbench.manipspace.envs.cube_env import CubeEnv

CAMERAS = {  # position in the world, and the camera's x and y axes
    "side_pixels": ((0.414, -0.753, 0.639), (1, 0, 0, -0.001, 0.628, 0.778)),
    "side_pixels_stack": ((0.400, -0.987, 0.509), (1, 0, 0, 0.000, 0.342, 0.940)),
}


class ManipObjEnv(Tabletop, CubeEnv):
    """One to six cubes that a robot arm has to bring to goal positions; see `Tabletop`."""

    env_type = "single"

    def __init__(self, settings: modes.ManipObjSettings, **kwargs: Any) -> None:
        self.law = modes.make_mode(settings)
        super().__init__(settings, self.law.side_camera, **kwargs)

    def add_objects(self, arena_mjcf: Any) -> None:
        """Add OGBench's cubes with this benchmark's density, and the side cameras."""
        super().add_objects(arena_mjcf)
        for geoms in self._cube_geoms_list:
            for geom in geoms:
                geom.density = rules.CUBE_DENSITY
        for name, (position, axes) in CAMERAS.items():
            arena_mjcf.worldbody.add("camera", name=name, pos=position, xyaxes=axes)

    # Episodes.

    def _begin(self, options: dict[str, Any]) -> None:
        """Draw colours, goal (or first target) and start, in this order."""
        colors = self.law.colors(self.np_random)
        self._cube_colors = table.PALETTE[colors]
        if self._mode == "task":
            self._make_goal(self._place_goal, bool(options.get("render_goal", False)))
        self.initialize_arm()
        self._place_cubes(*rules.scattered(self.np_random, self.num_cubes))
        self._settle_start()
        if self._mode != "task":
            self.law.reset()
            self._draw_target(0.5)

    def _place_goal(self) -> None:
        positions, yaws = self.law.place(self.np_random)
        self._place_cubes(positions, yaws)
        self._place_targets(positions, yaws)

    def _draw_target(self, p_stack: float) -> None:
        target = self.law.draw(self.np_random, self._cubes[:, :3], p_stack)
        self._target_task, self._target_block = target.task, target.cube
        self._place_targets(target.positions, target.yaws)

    # Steps.

    def _judge(self) -> float:
        """Set success and interaction after a step; return its reward."""
        positions = self._cubes[:, :3]
        targets = self._data.mocap_pos[self._mocap_ids[self.law.goal_of]]
        distance = table.distances(positions, targets)
        placed = distance <= self.law.success_distance
        if self._mode == "task":
            self._success, self._success_frac = bool(placed.all()), float(placed.mean())
        else:
            self._success = bool(placed[self._target_block])
            self._target_block = self.law.follow(positions, self._target_block)
        moved = table.distances(positions, self._prev_qpos[self._cube_qpos[:, :3]])
        self._interaction = bool((moved >= table.MOVED_DISTANCE).any())
        scale, within = self.settings.reward_scale, self.law.success_distance
        return float(rules.reward(distance, self.reward_mode, scale, within))

    def add_object_info(self, ob_info: dict[str, Any]) -> None:
        """Add the cubes' poses and, while collecting, the target."""
        super().add_object_info(ob_info)
        if self._mode != "task":
            self._add_target_info(ob_info, self._target_task, self._target_block)
