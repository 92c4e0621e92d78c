"""The simulated table: OGBench's robot with heavier cubes, what is measured there, its frames."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from envs import manipobj_rules as rules
from envs.rendering import open_renderer, without_backend

with without_backend():
    import mujoco
    from ogbench.manipspace.envs.cube_env import CubeEnv

SUBGOAL_ALPHA = 0.35
INFO_GHOST_ALPHA = 0.2  # of targets under visualize_info
CAMERAS = {  # position in the world, and the camera's x and y axes
    "side_pixels": ((0.414, -0.753, 0.639), (1, 0, 0, -0.001, 0.628, 0.778)),
    "side_pixels_stack": ((0.400, -0.987, 0.509), (1, 0, 0, 0.000, 0.342, 0.940)),
}
# What OGBench finds out when it compiles a model; equal for all environments of one make.
COMPILED = (
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


class CubeScene(CubeEnv):
    """Robot, table and N cubes, without episodes.

    Everything measured is computed once per step, by `_measure`; OGBench does it three times, with
    look-ups by name. The numbers are the same.

    Args:
        num_cubes: N, from 1 to 6.
        cameras: the cameras of pixel observations and frames.
        **kwargs: arguments of OGBench's environment.
    """

    def __init__(self, num_cubes: int, cameras: tuple[str, ...], **kwargs: Any) -> None:
        # OGBench must not see ob_type "pixels": it would recolour the gripper and the arm.
        super().__init__(env_type="single", ob_type="states", **kwargs)
        self.num_cubes = self._num_cubes = num_cubes
        self.cameras = cameras
        self._cube_colors = rules.PALETTE[:num_cubes]  # RGBA in [0, 1]

    # The model.

    def set_tasks(self) -> None:
        """Leave OGBench's fixed tasks out: goals are drawn."""

    def add_objects(self, arena_mjcf: Any) -> None:
        """Add OGBench's cubes with this benchmark's density, and the side cameras."""
        super().add_objects(arena_mjcf)
        for geoms in self._cube_geoms_list:
            for geom in geoms:
                geom.density = rules.CUBE_DENSITY
        for name, (position, axes) in CAMERAS.items():
            arena_mjcf.worldbody.add("camera", name=name, pos=position, xyaxes=axes)

    def compile_model_and_data(self) -> None:
        """Take the model that all environments of this make in the process share.

        Compiling one takes a second, keeping it 170 MB. Only colours differ between them: `render`
        sets them.
        """
        timestep, size = self._physics_timestep, (self._render_width, self._render_height)
        vars(self).update(_compiled(self.num_cubes, timestep, *size))
        self._data = mujoco.MjData(self._model)
        starts = [self._model.joint(f"object_joint_{i}").qposadr[0] for i in range(self.num_cubes)]
        self._cube_qpos = np.asarray(starts)[:, None] + np.arange(7)  # (N, 7): xyz, wxyz
        self._mocap_ids = np.asarray(self._cube_target_mocap_ids)
        self._cube_geoms = np.asarray(self._cube_geom_ids_list)  # (N, 1)
        self._ghost_geoms = np.asarray(self._cube_target_geom_ids_list)  # (N, 1)
        self._right_pad_id = self._model.body("ur5e/robotiq/right_pad").id
        self._gripper_qpos = self._model.joint("ur5e/robotiq/right_driver_joint").qposadr[0]

    def _place_cubes(self, positions: np.ndarray, yaws: np.ndarray) -> None:
        """Move the cubes to positions (N, 3) and yaws (N,)."""
        self._data.qpos[self._cube_qpos[:, :3]] = positions
        self._data.qpos[self._cube_qpos[:, 3:]] = yaw_quaternions(yaws)

    def _place_targets(self, positions: np.ndarray, yaws: np.ndarray) -> None:
        """Move the targets, the cubes' ghosts, to positions (N, 3) and yaws (N,)."""
        self._data.mocap_pos[self._mocap_ids] = positions
        self._data.mocap_quat[self._mocap_ids] = yaw_quaternions(yaws)

    def _simulate(self, action: np.ndarray) -> None:
        """Advance by one control step under `action` (5,)."""
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
        state = np.empty(rules.AGENT_DIM + rules.CUBE_DIM * self.num_cubes)
        cos, sin = np.cos(self._yaws), np.sin(self._yaws)
        effector = self._data.site_xpos[self._pinch_site_id]
        state[:3] = (effector - rules.CENTER) * rules.XYZ_SCALE
        state[3], state[4] = cos[0], sin[0]
        state[5] = self._gripper[0] * rules.GRIPPER_SCALE
        rows = state[rules.AGENT_DIM :].reshape(self.num_cubes, rules.CUBE_DIM)
        rows[:, :3] = (self._cubes[:, :3] - rules.CENTER) * rules.XYZ_SCALE
        rows[:, 3], rows[:, 4] = cos[1:], sin[1:]
        return state

    def _full_state(self) -> np.ndarray:
        joints, data = self._arm_joint_ids, self._data
        clean = self._state[rules.AGENT_DIM :].reshape(self.num_cubes, rules.CUBE_DIM)
        rows = np.concatenate((clean[:, :3], self._cubes[:, 3:], clean[:, 3:]), axis=1)
        agent = (data.qpos[joints], data.qvel[joints], self._state[:6], self._gripper_contact())
        return np.concatenate((*agent, rows.ravel()))

    def _gripper_contact(self) -> np.ndarray:
        force = np.linalg.norm(self._data.cfrc_ext[self._right_pad_id])
        return np.array([min(force / 50, 1.0)])

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

    # Frames.

    def _initialize_renderer(self) -> None:
        self._renderer = open_renderer(self._model, self._render_height, self._render_width)

    def render(self, camera: str | Sequence[str] = "front_pixels", **kwargs: Any) -> np.ndarray:
        """Draw one camera (height, width, 3), or several stacked on axis 0, as uint8."""
        self._paint()
        if isinstance(camera, str):
            return super().render(camera=camera, **kwargs)
        return np.stack([super(CubeScene, self).render(camera=c, **kwargs) for c in camera])

    def _paint(self) -> None:
        """Colour the shared model as this environment's cubes and targets look.

        Targets show under `visualize_info` only, and only those in use: others are below the table.
        """
        shown = self._visualize_info & (self._data.mocap_pos[self._mocap_ids, 2] > 0)
        rgba = self._model.geom_rgba
        rgba[self._cube_geoms] = self._cube_colors[:, None]
        rgba[self._ghost_geoms, :3] = self._cube_colors[:, None, :3]
        rgba[self._ghost_geoms, 3] = INFO_GHOST_ALPHA * shown[:, None]

    def get_pixel_observation(self) -> np.ndarray:
        """Draw the cameras of `ob_type="pixels"`; one camera has no leading axis."""
        frames = self.render(self.cameras)
        return frames if len(self.cameras) > 1 else frames[0]

    def frame(self, **kwargs: Any) -> np.ndarray:
        """Draw all cameras side by side (height, cameras * width, 3), for people to look at."""
        return np.concatenate(list(self.render(self.cameras, **kwargs)), axis=1)

    def subgoal_frame(self, state: np.ndarray) -> np.ndarray:
        """Draw `frame` with a subgoal: its cubes as ghosts, its effector as a small sphere.

        Nothing in the simulation changes: the ghosts exist in the drawn scene only.

        Args:
            state: a `states_clean` vector (6 + 5 N,), of any scale of cosine and sine.
        """
        state = np.asarray(state, dtype=np.float64)
        effector = state[:3] / rules.XYZ_SCALE + rules.CENTER
        cubes = state[rules.AGENT_DIM :].reshape(self.num_cubes, rules.CUBE_DIM)
        positions = cubes[:, :3] / rules.XYZ_SCALE + rules.CENTER
        quaternions = yaw_quaternions(np.arctan2(cubes[:, 4], cubes[:, 3]))

        def draw(scene: mujoco.MjvScene) -> None:
            size = np.full(3, rules.CUBE_HEIGHT / 2)
            for color, position, quaternion in zip(
                self._cube_colors, positions, quaternions, strict=True
            ):
                _add_geom(scene, mujoco.mjtGeom.mjGEOM_BOX, size, position, quaternion, color)
            white, upright = np.ones(4), np.array([1.0, 0, 0, 0])
            sphere = mujoco.mjtGeom.mjGEOM_SPHERE
            _add_geom(scene, sphere, np.full(3, 0.012), effector, upright, white)

        return self.frame(scene_callback=draw)

    def close(self) -> None:
        """Free the OpenGL context, if there is one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


@functools.lru_cache(maxsize=4)
def _compiled(num_cubes: int, timestep: float, width: int, height: int) -> dict[str, Any]:
    """Build and compile the model as OGBench does; return the attributes `COMPILED`."""
    scene = CubeScene(num_cubes, (), width=width, height=height)
    scene.set_timesteps(timestep, timestep)
    scene._mjcf_model = scene.build_mjcf_model()
    CubeEnv.compile_model_and_data(scene)
    return {name: getattr(scene, name) for name in COMPILED}


def yaw_angles(quaternions: np.ndarray) -> np.ndarray:
    """Return the z-Euler angles (K,) in [-pi, pi] of quaternions (K, 4), wxyz."""
    w, x, y, z = quaternions.T
    return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y**2 + z**2))


def yaw_quaternions(yaws: np.ndarray) -> np.ndarray:
    """Return the quaternions (K, 4), wxyz, of rotations about z by `yaws` (K,)."""
    quaternions = np.zeros((len(yaws), 4))
    quaternions[:, 0], quaternions[:, 3] = np.cos(yaws / 2), np.sin(yaws / 2)
    return quaternions


def _add_geom(
    scene: mujoco.MjvScene,
    kind: mujoco.mjtGeom,
    size: np.ndarray,
    position: np.ndarray,
    quaternion: np.ndarray,
    color: np.ndarray,
) -> None:
    """Put a translucent shape into a scene that is about to be drawn."""
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    rgba = np.array([*color[:3], SUBGOAL_ALPHA], dtype=np.float32)
    mujoco.mjv_initGeom(scene.geoms[scene.ngeom], kind, size, position, matrix, rgba)
    scene.ngeom += 1
