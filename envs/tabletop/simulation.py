"""The robot's table as OGBench simulates it: what all worlds with arm and cubes share.

Everything measured is computed once per step, by `_measure`; OGBench does it three times, with
look-ups by name. The numbers are the same.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from envs.rendering import without_backend
from envs.tabletop import table
from envs.tabletop.frames import Frames, yaw_angles, yaw_quaternions

with without_backend():
    import mujoco

OB_TYPES = ("states", "states_clean", "pixels")
FULL_AGENT_DIM, FULL_CUBE_DIM = 19, 9  # of OGBench's state vectors
SETTLE_STEPS = 2  # control steps between placing the goal and recording it


class Tabletop(Frames):
    """Arm and N cubes; derive from it and, after it, from the OGBench environment to change.

    Differs from the reference: everything random in an episode is drawn from `np_random`, so
    `reset(seed=...)` reproduces all of it.

    Args:
        num_cubes: N.
        cameras: the cameras of pixel observations and frames.
        ob_type: what `reset` and `step` return as observation: "states" (OGBench's vector),
            "states_clean" (a shorter one without joints) or "pixels".
        render_quality: how frames are drawn, a key of `envs.rendering.QUALITIES`.
        **kwargs: arguments of OGBench's environment.
    """

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
        num_cubes: int,
        cameras: tuple[str, ...],
        ob_type: str = "states",
        render_quality: str = "full",
        **kwargs: Any,
    ) -> None:
        if ob_type not in OB_TYPES:
            raise ValueError(f"ob_type must be one of {OB_TYPES}, not {ob_type!r}")
        # OGBench must not see ob_type "pixels": it would recolour the gripper and the arm.
        super().__init__(ob_type="states", **kwargs)
        self.num_cubes = self._num_cubes = num_cubes
        self.cameras = cameras
        self.render_quality = render_quality
        self.ob_type = ob_type
        self._cube_colors = table.PALETTE[:num_cubes]

    # Spaces.

    def _make_spaces(self, sizes: Mapping[str, int]) -> None:
        """Fix both spaces; `sizes` has the lengths of the two state vectors by `ob_type`."""
        self._action_space = gym.spaces.Box(-1.0, 1.0, (5,), np.float32)
        if self.ob_type == "pixels":
            views = (len(self.cameras),) if len(self.cameras) > 1 else ()
            shape = (*views, self._render_height, self._render_width, 3)
            self._observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        else:
            shape = (sizes[self.ob_type],)
            self._observation_space = gym.spaces.Box(-np.inf, np.inf, shape, np.float64)

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

    def _share_model(self, table: type[Tabletop]) -> None:
        """Take the model that all environments of this make in the process share.

        Compiling one takes a second, keeping it 170 MB. What differs between environments is set
        before each use: colours by `_paint`, anything else by `_claim_model`. `table` is the class
        that builds the model.
        """
        timestep, size = self._physics_timestep, (self._render_width, self._render_height)
        vars(self).update(_compiled(table, self.num_cubes, timestep, *size))
        self._data = mujoco.MjData(self._model)
        starts = [self._model.joint(f"object_joint_{i}").qposadr[0] for i in range(self.num_cubes)]
        self._cube_qpos = np.asarray(starts)[:, None] + np.arange(7)  # (N, 7): xyz, wxyz
        self._mocap_ids = np.asarray(self._cube_target_mocap_ids)
        self._cube_geoms = np.asarray(self._cube_geom_ids_list)  # (N, 1)
        self._ghost_geoms = np.asarray(self._cube_target_geom_ids_list)  # (N, 1)
        self._right_pad_id = self._model.body("ur5e/robotiq/right_pad").id
        self._gripper_qpos = self._model.joint("ur5e/robotiq/right_driver_joint").qposadr[0]

    def _claim_model(self) -> None:
        """Set what else differs between environments of one model: nothing, with cubes alone."""

    def _place_cubes(self, positions: np.ndarray, yaws: np.ndarray) -> None:
        """Move the cubes to positions (N, 3) and yaws (N,)."""
        self._data.qpos[self._cube_qpos[:, :3]] = positions
        self._data.qpos[self._cube_qpos[:, 3:]] = yaw_quaternions(yaws)

    def _place_targets(self, positions: np.ndarray, yaws: np.ndarray) -> None:
        """Move the targets, the cubes' ghosts, to positions (N, 3) and yaws (N,)."""
        self._data.mocap_pos[self._mocap_ids] = positions
        self._data.mocap_quat[self._mocap_ids] = yaw_quaternions(yaws)

    # Episodes and steps.

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

    def _record_goal(self, render: bool, home: tuple[np.ndarray, np.ndarray]) -> None:
        """Let the goal that was placed settle, keep its observation, and go back `home`.

        The settled cubes differ from the targets, which stay ideal, by about 1e-4 m.
        """
        for _ in range(SETTLE_STEPS):
            self._simulate(self.np_random.uniform(-1.0, 1.0, self._action_space.shape))
        self._measure()
        goal, rendered = self._observe(), None
        if render:
            rendered = goal if self.ob_type == "pixels" else self.get_pixel_observation()
        self._goal = {"goal": goal, "state_goal": self._state, "goal_rendered": rendered}
        # Time, controls and the solver's warm start stay as the settling left them.
        self._data.qpos[:], self._data.qvel[:] = home

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Apply one action (5,) for one control step; the time limit truncates, not this."""
        if self._reset_next_step:
            raise gym.error.ResetNeeded("call reset before the first step")
        self._prev_state = self._state
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

    def _remember(self) -> None:
        self._prev_qpos = self._data.qpos.copy()
        self._prev_qvel = self._data.qvel.copy()

    # Observations. `_measure` runs once per step; all vectors and infos come from its results.

    def _measure(self) -> None:
        data, cubes = self._data, self._data.qpos[self._cube_qpos]
        effector = np.empty(4)
        mujoco.mju_mat2Quat(effector, data.site_xmat[self._pinch_site_id])
        self._yaws = yaw_angles(np.vstack((effector, cubes[:, 3:])))  # effector, then cubes
        self._cubes = cubes
        self._gripper = np.clip(data.qpos[[self._gripper_qpos]] / 0.8, 0, 1)
        self._state = self._clean_state()

    def _clean_state(self) -> np.ndarray:
        """Return arm and cubes, (6 + 5 N,)."""
        state = np.empty(table.AGENT_DIM + table.CUBE_DIM * self.num_cubes)
        cos, sin = np.cos(self._yaws), np.sin(self._yaws)
        effector = self._data.site_xpos[self._pinch_site_id]
        state[:3] = (effector - table.CENTER) * table.XYZ_SCALE
        state[3], state[4] = cos[0], sin[0]
        state[5] = self._gripper[0] * table.GRIPPER_SCALE
        rows = self._cube_rows(state)
        rows[:, :3] = (self._cubes[:, :3] - table.CENTER) * table.XYZ_SCALE
        rows[:, 3], rows[:, 4] = cos[1:], sin[1:]
        return state

    def _full_state(self) -> np.ndarray:
        """Return OGBench's vector of arm and cubes, (19 + 9 N,)."""
        joints, data = self._arm_joint_ids, self._data
        clean = self._cube_rows(self._state)
        rows = np.concatenate((clean[:, :3], self._cubes[:, 3:], clean[:, 3:]), axis=1)
        agent = (data.qpos[joints], data.qvel[joints], self._state[:6], self._gripper_contact())
        return np.concatenate((*agent, rows.ravel()))

    def _gripper_contact(self) -> np.ndarray:
        force = np.linalg.norm(self._data.cfrc_ext[self._right_pad_id])
        return np.array([min(force / 50, 1.0)])

    def compute_observation(self) -> np.ndarray:
        """Return the observation (`ob_type`) of the simulator's present state."""
        self._measure()
        return self._observe()

    def _observe(self) -> np.ndarray:
        if self.ob_type == "pixels":
            return self.get_pixel_observation()
        return self._state.copy() if self.ob_type == "states_clean" else self._full_state()

    def compute_ob_info(self) -> dict[str, Any]:
        """Return OGBench's info of the last measured state, with fresh arrays."""
        data, joints = self._data, self._arm_joint_ids
        info = {
            "proprio/joint_pos": data.qpos[joints],
            "proprio/joint_vel": data.qvel[joints],
            "proprio/effector_pos": data.site_xpos[self._pinch_site_id].copy(),
            "proprio/effector_yaw": self._yaws[:1],
            "proprio/gripper_opening": self._gripper,
            "proprio/gripper_vel": data.qvel[[self._gripper_opening_joint_id]],
            "proprio/gripper_contact": self._gripper_contact(),
        }
        self.add_object_info(info)
        info["prev_qpos"], info["prev_qvel"] = self._prev_qpos, self._prev_qvel
        info["qpos"], info["qvel"] = data.qpos.copy(), data.qvel.copy()
        info["control"], info["time"] = data.ctrl.copy(), np.array([data.time])
        return info

    def add_object_info(self, ob_info: dict[str, Any]) -> None:
        """Add the cubes' poses."""
        for i, cube in enumerate(self._cubes):
            ob_info[f"privileged/block_{i}_pos"] = cube[:3]
            ob_info[f"privileged/block_{i}_quat"] = cube[3:]
            ob_info[f"privileged/block_{i}_yaw"] = self._yaws[i + 1 : i + 2]

    def _add_target_info(self, ob_info: dict[str, Any], task: str, cube: int) -> None:
        """Add the scripted policy's job and the pose of the target of one cube."""
        ghost = self._mocap_ids[cube]
        ob_info["privileged/target_task"] = task
        ob_info["privileged/target_block"] = cube
        ob_info["privileged/target_block_pos"] = self._data.mocap_pos[ghost].copy()
        ob_info["privileged/target_block_yaw"] = yaw_angles(self._data.mocap_quat[[ghost]])


@functools.lru_cache(maxsize=4)
def _compiled(
    table: type[Tabletop], num_cubes: int, timestep: float, width: int, height: int
) -> dict[str, Any]:
    """Build and compile the model as OGBench does; return the attributes `table.compiled`."""
    scene = table(num_cubes, (), width=width, height=height)
    scene.set_timesteps(timestep, timestep)
    scene._mjcf_model = scene.build_mjcf_model()
    super(Tabletop, scene).compile_model_and_data()
    return {name: getattr(scene, name) for name in table.compiled}
