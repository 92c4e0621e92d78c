"""The cube environment `manipobj-v0`: OGBench's, with heavier cubes and its own episodes.

A UR5e arm with a Robotiq gripper moves one to six cubes on a table (20 actions a second). Robot,
control, physics and observation vector are OGBench's `CubeEnv`; density of the cubes, start, goal,
success, reward and cameras follow the HECRL benchmark (`envs/manipobj/rules.py`, and by mode
`envs/manipobj/modes.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.manipobj import modes, rules
from envs.rendering import without_backend
from envs.tabletop import table
from envs.tabletop.simulation import FULL_AGENT_DIM, FULL_CUBE_DIM, Tabletop

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


with without_backend():
    import mujoco


class ManipObjEnv(CubeScene):
    """One to six cubes that a robot arm has to bring to goal positions.

    Args:
        mode: a key of `modes.GOALS` (reach a goal) or of `modes.TARGETS` (scripted collection).
        ob_type: what `reset` and `step` return as observation: "states" (19 + 9 N,) float64,
            "states_clean" (6 + 5 N,) float64, or "pixels" uint8 (height, width, 3), with
            `multiview` (2, height, width, 3).
        reward_mode: "sparse", "step" or "dense", see `rules.reward`.
        num_cubes: N, from 1 to 6.
        num_colors: colours, and with them spots, of mode `task_sort`.
        p_push: share of a collection's targets that are pushed; the others are picked and placed.
        p_stack: a collection's probability of building on other cubes; None: the published one.
        random_colors: draw N distinct colours each episode, else colour i for cube i.
        reward_scale: factor of the dense reward.
        terminate_at_goal: end the episode on success, else only the time limit ends it.
        visualize_info: show the targets as translucent cubes in every frame.
        multiview: frames of a front and a side camera instead of the front camera alone.
        render_mode: None or "rgb_array".
        width, height: size of one camera's image in pixels.
        render_quality: a key of `envs.rendering.QUALITIES`.
        physics_timestep, control_timestep: seconds per simulation step and per action.

    Raises:
        UserError: for an unknown mode, reward mode or number of cubes or colours, and by `reset`,
            `step` and `render` if frames are wanted and cannot be drawn.
    """

    def __init__(
        self,
        mode: str = "task",
        ob_type: str = "states",
        reward_mode: str = "step",
        num_cubes: int = 1,
        num_colors: int = rules.MAX_CUBES,
        p_push: float = rules.P_PUSH,
        p_stack: float | None = None,
        random_colors: bool = False,
        reward_scale: float = 1.0,
        terminate_at_goal: bool = False,
        visualize_info: bool = False,
        multiview: bool = False,
        render_mode: str | None = None,
        width: int = 200,
        height: int = 200,
        render_quality: str = "full",
        physics_timestep: float = 0.002,
        control_timestep: float = 0.05,
    ) -> None:
        rules.check_reward_mode(reward_mode)
        self.law = modes.make_mode(mode, num_cubes, num_colors, p_push, p_stack)
        super().__init__(
            num_cubes,
            ("front_pixels", self.law.side_camera) if multiview else ("front_pixels",),
            ob_type=ob_type,
            render_quality=render_quality,
            mode="task" if mode in modes.GOALS else "data_collection",
            terminate_at_goal=terminate_at_goal,
            visualize_info=visualize_info,
            physics_timestep=physics_timestep,
            control_timestep=control_timestep,
            width=width,
            height=height,
        )
        self.mode = mode
        self.reward_mode = reward_mode
        self.render_mode = render_mode
        self._random_colors = random_colors
        self._reward_scale = reward_scale
        clean = table.AGENT_DIM + table.CUBE_DIM * num_cubes
        full = FULL_AGENT_DIM + FULL_CUBE_DIM * num_cubes
        self._make_spaces({"states": full, "states_clean": clean})

    # Episodes.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: seeds every draw of this episode and, in turn, of the following ones.
            options: `{"render_goal": True}` adds a frame of the goal to the info.
        """
        self._restart(seed)
        self._render_goal = bool((options or {}).get("render_goal", False))
        self.initialize_episode()
        return self._observe(), self.get_reset_info()

    def initialize_episode(self) -> None:
        """Draw colours, goal (or first target) and start, in this order."""
        colors = self.law.colors(self.np_random, self._random_colors)
        self._cube_colors = table.PALETTE[colors]
        if self.mode in modes.GOALS:
            self._make_goal()
        self.initialize_arm()
        self._place_cubes(*rules.scattered(self.np_random, self.num_cubes))
        self._remember()
        mujoco.mj_forward(self._model, self._data)
        self._measure()
        self._prev_state = self._state
        if self.mode in modes.TARGETS:
            self.law.reset()
            self.set_new_target(return_info=False)

    def _make_goal(self) -> None:
        """Draw the goal, let it settle, record it, and bring the robot back home."""
        home = self._data.qpos.copy(), self._data.qvel.copy()
        self.initialize_arm()
        positions, yaws = self.law.place(self.np_random)
        self._place_cubes(positions, yaws)
        self._place_targets(positions, yaws)
        mujoco.mj_forward(self._model, self._data)
        self._record_goal(self._render_goal, home)

    def set_new_target(
        self, return_info: bool = True, p_stack: float = 0.5
    ) -> tuple[np.ndarray, dict[str, Any]] | None:
        """Draw the scripted policy's next target (collection modes only).

        Args:
            return_info: whether to return observation and info with the new target.
            p_stack: probability of a target on top of another cube, or of a new stack.
        """
        target = self.law.draw(self.np_random, self._cubes[:, :3], p_stack)
        self._target_task, self._target_block = target.task, target.cube
        self._place_targets(target.positions, target.yaws)
        return (self._observe(), self.get_reset_info()) if return_info else None

    # Steps.

    def _judge(self) -> float:
        """Set success and interaction after a step; return its reward."""
        positions = self._cubes[:, :3]
        targets = self._data.mocap_pos[self._mocap_ids[self.law.goal_of]]
        distance = table.distances(positions, targets)
        placed = distance <= self.law.success_distance
        if self.mode in modes.GOALS:
            self._success, self._success_frac = bool(placed.all()), float(placed.mean())
        else:
            self._success = bool(placed[self._target_block])
            self._target_block = self.law.follow(positions, self._target_block)
        moved = table.distances(positions, self._prev_qpos[self._cube_qpos[:, :3]])
        self._interaction = bool((moved >= table.MOVED_DISTANCE).any())
        scale, within = self._reward_scale, self.law.success_distance
        return float(rules.reward(distance, self.reward_mode, scale, within))

    def add_object_info(self, ob_info: dict[str, Any]) -> None:
        """Add the cubes' poses and, while collecting, the target."""
        super().add_object_info(ob_info)
        if self.mode in modes.TARGETS:
            self._add_target_info(ob_info, self._target_task, self._target_block)

    def _common_info(self) -> dict[str, Any]:
        info = self.compute_ob_info()
        info["state_obs"] = self._state
        if self.mode in modes.TARGETS:
            info["prev_state_clean_observation"] = self._prev_state
        return info

    def get_reset_info(self) -> dict[str, Any]:
        """Return the state and, in task modes, the goal (`goal`, `state_goal`, ...)."""
        goal = self._goal if self.mode in modes.GOALS else {}
        return self._common_info() | goal

    def get_step_info(self) -> dict[str, Any]:
        """Return the state and how the step went."""
        return self._common_info() | {
            "success": self._success,
            "success_frac": self._success_frac,
            "was_agent_object_interaction": self._interaction,
        }
