"""Pictures of the robot's table: cameras, colours, subgoals as ghosts; and angles of yaw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.rendering import add_ghost, check_process, shared_renderer, without_backend
from envs.tabletop import table

with without_backend():
    import mujoco
    from ogbench.manipspace.envs.manipspace_env import ManipSpaceEnv

INFO_GHOST_ALPHA = 0.2  # of targets under visualize_info
EFFECTOR_RADIUS = 0.012  # of the sphere that marks a subgoal's effector, metres
UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0])


class Frames(ManipSpaceEnv):
    """The part of `envs.tabletop.simulation.Tabletop` that draws."""

    num_cubes: int
    cameras: tuple[str, ...]
    render_quality: str  # a key of `envs.rendering.QUALITIES`
    _cube_colors: np.ndarray  # (N, 4) RGBA in [0, 1]
    _cube_geoms: np.ndarray  # (N, 1) in the model
    _ghost_geoms: np.ndarray  # (N, 1)
    _mocap_ids: np.ndarray  # (N,) of the targets

    def _initialize_renderer(self) -> None:
        size = self._render_height, self._render_width
        self._renderer = shared_renderer(self._model, *size, self.render_quality)

    def _draw(self, camera: str | Sequence[str] = "front_pixels", **kwargs: Any) -> np.ndarray:
        """Draw one camera (height, width, 3), or several stacked on axis 0, as uint8."""
        check_process()
        self._paint()
        if isinstance(camera, str):
            return super().render(camera=camera, **kwargs)
        return np.stack([super(Frames, self).render(camera=c, **kwargs) for c in camera])

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
        frames = self._draw(self.cameras)
        return frames if len(self.cameras) > 1 else frames[0]

    def frame(self, **kwargs: Any) -> np.ndarray:
        """Draw all cameras side by side (height, cameras * width, 3), for people to look at."""
        return np.concatenate(list(self._draw(self.cameras, **kwargs)), axis=1)

    def subgoal_frame(self, state: np.ndarray) -> np.ndarray:
        """Draw `frame` with a subgoal, a `states_clean` vector of any scale of cosine and sine.

        Its objects are ghosts, its effector a small sphere, in the drawn scene only.
        """
        state = np.asarray(state, dtype=np.float64)
        return self.frame(scene_callback=lambda scene: self._draw_subgoal(scene, state))

    def _draw_subgoal(self, scene: mujoco.MjvScene, state: np.ndarray) -> None:
        cubes = self._cube_rows(state)
        quaternions = yaw_quaternions(np.arctan2(cubes[:, 4], cubes[:, 3]))
        draw_poses(scene, cubes[:, :3], quaternions, self._cube_colors, state[:3])

    def _cube_rows(self, state: np.ndarray) -> np.ndarray:
        """Return the part of a clean state that is the cubes', as a view (N, 5)."""
        end = table.AGENT_DIM + table.CUBE_DIM * self.num_cubes
        return state[table.AGENT_DIM : end].reshape(self.num_cubes, table.CUBE_DIM)

    def close(self) -> None:
        """Let go of the renderer, which other environments of the process may be using."""
        self._renderer = None


def yaw_angles(quaternions: np.ndarray) -> np.ndarray:
    """Return the z-Euler angles (K,) in [-pi, pi] of quaternions (K, 4), wxyz."""
    w, x, y, z = quaternions.T
    return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y**2 + z**2))


def yaw_quaternions(yaws: np.ndarray) -> np.ndarray:
    """Return the quaternions (K, 4), wxyz, of rotations about z by `yaws` (K,)."""
    quaternions = np.zeros((len(yaws), 4))
    quaternions[:, 0], quaternions[:, 3] = np.cos(yaws / 2), np.sin(yaws / 2)
    return quaternions


def draw_poses(
    scene: mujoco.MjvScene,
    positions: np.ndarray,
    quaternions: np.ndarray,
    colors: Sequence[np.ndarray],
    effector: np.ndarray,
) -> None:
    """Put ghosts of N cubes into a scene that is about to be drawn, and a sphere at the effector.

    Quaternions (N, 4) are wxyz, colours (N, 4) RGBA; positions (N, 3) and the effector (3,) are as
    in states.
    """
    positions, effector = (xyz / table.XYZ_SCALE + table.CENTER for xyz in (positions, effector))
    box, size = mujoco.mjtGeom.mjGEOM_BOX, np.full(3, table.CUBE_HEIGHT / 2)
    for pose in zip(positions, quaternions, colors, strict=True):
        add_ghost(scene, box, size, *pose)
    sphere, size = mujoco.mjtGeom.mjGEOM_SPHERE, np.full(3, EFFECTOR_RADIUS)
    add_ghost(scene, sphere, size, effector, UPRIGHT, np.ones(4))
