"""The robot's table as OGBench simulates it: UR5e arm, Robotiq gripper, 20 actions a second."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np

from envs.environment import Environment
from envs.rendering import without_backend
from envs.tabletop import table
from envs.tabletop.frames import yaw_quaternions
from envs.tabletop.measures import Measures

with without_backend():
    import mujoco

DIMS = {"states": (19, 9), "states_clean": (table.AGENT_DIM, table.CUBE_DIM)}  # of arm and a cube
OB_TYPES = (*DIMS, "pixels")
SETTLE_STEPS = 2  # control steps between placing the goal and recording it


class Tabletop(Environment, Measures):
    """Arm and N cubes; derive from it and, after it, from the OGBench environment to change.

    Differs from the reference: everything random in an episode is drawn from `np_random`, so
    `reset(seed=...)` reproduces all of it.

    Args:
        settings: the world's section of the configuration.
        side_camera: the second camera of `multiview`.
        ob_type: what `reset` and `step` return as observation: "states" (OGBench's vector),
            "states_clean" (a shorter one without joints), both float64, or "pixels" uint8
            (height, width, 3), with `multiview` (2, height, width, 3).
        multiview: frames of a front and a side camera instead of the front camera alone.
        render_mode: None or "rgb_array".
        **kwargs: arguments of OGBench's environment, such as `control_timestep` in seconds.

    Raises:
        UserError: by `reset`, `step` and `render` if frames are wanted and cannot be drawn.
    """

    env_type: ClassVar[str]  # of OGBench's class
    others: ClassVar[dict[str, int]] = {"states": 0, "states_clean": 0}  # besides arm and cubes
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}
    # What OGBench finds out when it compiles a model; equal for all environments of one make.
    compiled: ClassVar[tuple[str, ...]] = (
        "_model",
        "_ik",
        "_T_pa",
        "_arm_joint_ids",
        "_arm_actuator_ids",
        "_gripper_actuator_ids",
        "_gripper_opening_joint_id",
        "_pinch_site_id",
        "_attach_site_id",
        "_cube_geom_ids_list",
        "_cube_target_geom_ids_list",
        "_cube_target_mocap_ids",
    )

    def __init__(
        self,
        settings: Any,
        side_camera: str,
        ob_type: str = "states",
        multiview: bool = False,
        render_mode: str | None = None,
        **kwargs: Any,
    ) -> None:
        if ob_type not in OB_TYPES:
            raise ValueError(f"ob_type must be one of {OB_TYPES}, not {ob_type!r}")
        names = ("terminate_at_goal", "visualize_info", "width", "height")
        super().__init__(
            env_type=self.env_type,
            ob_type="states",  # seeing "pixels", OGBench would recolour the gripper and the arm
            mode="data_collection" if "data_collection" in settings.mode else "task",
            **{name: getattr(settings, name) for name in names},
            **kwargs,
        )
        self.settings, self.reward_mode = settings, settings.reward_mode
        self.num_cubes = self._num_cubes = settings.num_cubes
        self.render_quality, self.render_mode = settings.render_quality, render_mode
        self.ob_type = ob_type
        self.cameras = ("front_pixels", side_camera) if multiview else ("front_pixels",)
        self._cube_colors = table.PALETTE[: self.num_cubes]
        self._action_space = gym.spaces.Box(-1.0, 1.0, (5,), np.float32)
        self._observation_space = self._make_observation_space()

    # Spaces.

    def _make_observation_space(self) -> gym.spaces.Box:
        if self.ob_type == "pixels":
            views = (len(self.cameras),) if len(self.cameras) > 1 else ()
            shape = (*views, self._render_height, self._render_width, 3)
            return gym.spaces.Box(0, 255, shape, np.uint8)
        agent, cube = DIMS[self.ob_type]
        size = agent + cube * self.num_cubes + self.others[self.ob_type]
        return gym.spaces.Box(-np.inf, np.inf, (size,), np.float64)

    @property
    def action_space(self) -> gym.spaces.Box:
        """Relative effector xyz, yaw and gripper (5,), each in [-1, 1]; one object for ever."""
        return self._action_space

    @property
    def observation_space(self) -> gym.spaces.Box:
        """Space of `ob_type`; one object for ever, and nothing is drawn to know it."""
        return self._observation_space

    # The model.

    def set_tasks(self) -> None:
        """Leave OGBench's fixed tasks out."""

    def compile_model_and_data(self) -> None:
        """Take the model that all environments of this make in the process share.

        Compiling one takes a second, keeping it 170 MB. What differs between environments is set
        before each use: colours by `_paint`, anything else by `_claim_model`.
        """
        size = self._render_width, self._render_height
        shared = _shared(type(self), self.num_cubes, self._physics_timestep, *size)
        if not shared:
            builder = self._twin()  # OGBench's description of the model goes with it
            builder._mjcf_model = builder.build_mjcf_model()
            super(Tabletop, builder).compile_model_and_data()
            shared.update({name: getattr(builder, name) for name in self.compiled})
        vars(self).update(shared)
        self._data = mujoco.MjData(self._model)
        starts = [self._model.joint(f"object_joint_{i}").qposadr[0] for i in range(self.num_cubes)]
        self._cube_qpos = np.asarray(starts)[:, None] + np.arange(7)  # (N, 7): xyz, wxyz
        self._mocap_ids = np.asarray(self._cube_target_mocap_ids)
        self._cube_geoms = np.asarray(self._cube_geom_ids_list)  # (N, 1)
        self._ghost_geoms = np.asarray(self._cube_target_geom_ids_list)  # (N, 1)
        self._right_pad_id = self._model.body("ur5e/robotiq/right_pad").id
        self._gripper_qpos = self._model.joint("ur5e/robotiq/right_driver_joint").qposadr[0]

    def _claim_model(self) -> None:
        """Set in the model what else is this environment's own: nothing, with cubes alone."""

    def _forward(self) -> None:
        """Bring all that the simulator derives from qpos up to date."""
        self._claim_model()
        mujoco.mj_forward(self._model, self._data)

    def _place_cubes(self, positions: np.ndarray, yaws: np.ndarray) -> None:
        """Move the cubes to positions (N, 3) and yaws (N,)."""
        self._data.qpos[self._cube_qpos[:, :3]] = positions
        self._data.qpos[self._cube_qpos[:, 3:]] = yaw_quaternions(yaws)

    def _place_targets(self, positions: np.ndarray, yaws: np.ndarray) -> None:
        """Move the targets, the cubes' ghosts, to positions (N, 3) and yaws (N,)."""
        self._data.mocap_pos[self._mocap_ids] = positions
        self._data.mocap_quat[self._mocap_ids] = yaw_quaternions(yaws)

    # Episodes and steps.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; the option `{"render_goal": True}` adds a frame of the goal."""
        self._restart(seed)
        self._begin(options or {})
        return self._observe(), self.get_reset_info()

    def _restart(self, seed: int | None) -> None:
        """Put everything back to where the model has it; what is drawn next comes from `seed`."""
        # Not OGBench's reset: that draws a task from numpy's global generator.
        gym.Env.reset(self, seed=seed)
        if self._model is None:
            self.compile_model_and_data()
        self._claim_model()
        mujoco.mj_resetData(self._model, self._data)
        mujoco.mj_forward(self._model, self._data)
        self._reset_next_step = False
        self._success, self._success_frac, self._interaction = False, 0.0, False
        self._data.qpos[self._arm_joint_ids] = self._home_qpos
        mujoco.mj_kinematics(self._model, self._data)

    def _begin(self, options: dict[str, Any]) -> None:
        """Draw goal or first target, and start."""
        raise NotImplementedError

    def _make_goal(self, place: Callable[[], None], render: bool) -> None:
        """Let the goal that `place` makes settle, keep its observation, and bring the robot home.

        The settled cubes differ from the targets, which stay ideal, by about 1e-4 m.
        """
        home = self._data.qpos.copy(), self._data.qvel.copy()
        self.initialize_arm()
        place()
        self._forward()
        for _ in range(SETTLE_STEPS):
            self._simulate(self.np_random.uniform(-1.0, 1.0, self._action_space.shape))
        self._measure()
        goal, rendered = self._observe(), None
        if render:
            rendered = goal if self.ob_type == "pixels" else self.get_pixel_observation()
        self._goal = {"goal": goal, "state_goal": self._state, "goal_rendered": rendered}
        # Time, controls and the solver's warm start stay as the settling left them.
        self._data.qpos[:], self._data.qvel[:] = home

    def _settle_start(self) -> None:
        """Bring everything up to date with the start that was placed; nothing moves."""
        self._remember()
        self._forward()
        self._measure()

    def set_new_target(
        self, return_info: bool = True, p_stack: float = 0.5
    ) -> tuple[np.ndarray, dict[str, Any]] | None:
        """Draw the scripted policy's next target (collection only); perhaps return what is seen.

        `p_stack` is the probability of a target on top of another cube, or of a new stack.
        """
        self._draw_target(p_stack)
        return (self._observe(), self.get_reset_info()) if return_info else None

    def _draw_target(self, p_stack: float) -> None:
        raise NotImplementedError

    def _advance(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._simulate(action)
        self._measure()
        reward = self._judge()
        return self._observe(), reward, self.terminate_episode(), False, self.get_step_info()

    def _judge(self) -> float:
        """Set success, success fraction and interaction after a step; return its reward."""
        raise NotImplementedError

    def _simulate(self, action: np.ndarray) -> None:
        """Advance by one control step under `action` (5,)."""
        self._claim_model()
        self.set_control(np.array(action))
        self._remember()
        mujoco.mj_step(self._model, self._data, nstep=self._n_steps)
        mujoco.mj_rnePostConstraint(self._model, self._data)  # contact forces

    def _twin(self) -> Self:
        """Return an environment of the same attributes."""
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return an environment that goes on as this one would, with the same model."""
        twin = self._twin()
        shared = (*self.compiled, "_renderer", "_scene_option", "_camera", "_data")
        memo |= {id(value): value for value in (vars(self).get(name) for name in shared)}
        vars(twin).update(copy.deepcopy(vars(self), memo))
        twin._data = copy.copy(self._data)
        return twin

    def _remember(self) -> None:
        self._prev_qpos = self._data.qpos.copy()
        self._prev_qvel = self._data.qvel.copy()


@functools.lru_cache(maxsize=4)
def _shared(
    kind: type[Tabletop], num_cubes: int, timestep: float, width: int, height: int
) -> dict[str, Any]:
    """Return `kind.compiled` of a model, which the first environment of the make fills in."""
    return {}
