"""The table as MuJoCo simulates it: a pusher on three slide joints, objects that stay upright.

Free of contact the pusher is a unit mass on a critically damped spring, which is what the
reference's operational-space controller makes of its arm. Differs from the reference: objects have
no pitch and roll and touch the table with one foot, whose elliptic friction cone is the limit
surface of planar pushing, so nothing tilts and slips under the pusher; they still fall off edges.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from envs.pushing import rules
from envs.rendering import add_ghost, check_process, shared_renderer, without_backend

with without_backend():
    import mujoco

STEPS = 79  # of the simulator in an action
ACTION_METRES = 0.125  # that an action of 1 asks for
Z_BAND = (0.020, 0.035)  # of the controlled point: the pusher never passes over a cube
FALLEN = -0.01  # z of an object's centre, below which it has left the table
BOX, SPHERE = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_SPHERE
UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0])

# Parts of an object: centre and size; its foot's x and the length of its torsional friction.
CUBE_PARTS = (((0.0, 0.0), (rules.CUBE,) * 3),)
BLOCK_PARTS = (((0.0, 0.0), (0.03, 0.09, 0.03)), ((0.045, 0.0), (0.06, 0.02, 0.03)))
CUBE_FOOT, BLOCK_FOOT = (0.0, 0.0134), (0.0138, 0.0295)

MODEL = Path(__file__).with_name("table.xml")
WALL_RGBA = (0.6, 0.6, 0.65, 1)


def parts(scene: rules.Scene) -> tuple[tuple[tuple[float, float], tuple[float, ...]], ...]:
    """Return the boxes of an object: centre (x, y) and size."""
    return BLOCK_PARTS if scene.blocks else CUBE_PARTS


def rest_height(scene: rules.Scene) -> float:
    """Return z of the centre of an object that lies on the table."""
    return parts(scene)[0][1][2] / 2


@functools.lru_cache(maxsize=4)
def _compiled(scene: rules.Scene, num_objects: int, width: int, height: int) -> mujoco.MjModel:
    """Return a model that all environments of the process share, as they share its renderer."""
    spec = mujoco.MjSpec.from_file(str(MODEL))
    frame = spec.visual.global_
    frame.offwidth, frame.offheight = max(width, frame.offwidth), max(height, frame.offheight)
    spec.geom("table").size[:2] = np.array(scene.size) / 2
    for center, size in rules.WALLS if scene.corridor else ():
        place, half = (*center, size[2] / 2), np.array(size) / 2
        spec.worldbody.add_geom(type=BOX, pos=place, size=half, rgba=WALL_RGBA)
    for i in range(num_objects):
        _add_object(spec, f"object_{i}", scene)
    return spec.compile()


def _add_object(spec: mujoco.MjSpec, name: str, scene: rules.Scene) -> None:
    body = spec.worldbody.add_body(name=name)
    for axis in np.eye(3):
        body.add_joint(type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis)
    body.add_joint(type=mujoco.mjtJoint.mjJNT_HINGE)
    for center, size in parts(scene):
        body.add_geom(type=BOX, pos=(*center, 0), size=np.array(size) / 2)
    x, torsion = BLOCK_FOOT if scene.blocks else CUBE_FOOT
    foot = body.add_geom(spec.find_default("foot"), pos=(x, 0, 0.003 - rest_height(scene)))
    foot.friction = (0.6, 0.6 * torsion, 0)


class Table:
    """A simulated table.

    Args:
        size: of frames, height and width in pixels. quality: see `envs.rendering.QUALITIES`.
    """

    def __init__(
        self, scene: rules.Scene, num_objects: int, size: tuple[int, int], quality: str
    ) -> None:
        self.scene, self._size, self._quality = scene, size, quality
        self._model = _compiled(scene, num_objects, size[1], size[0])
        self._data = mujoco.MjData(self._model)
        bodies = [self._model.body(f"object_{i}") for i in range(num_objects)]
        first, count = bodies[0].geomadr[0], bodies[0].geomnum[0]
        self._geoms = first + np.arange(num_objects * count).reshape(num_objects, count)[:, :-1]
        self.tip = 2 * self._model.geom("tip").size  # of the pusher's end, in x, y and z
        self._low = np.array([*-scene.reach, Z_BAND[0]])
        self._high = np.array([*scene.reach, Z_BAND[1]])

    @property
    def qpos(self) -> np.ndarray:
        """The pusher's x, y, z and each object's x, y, z and yaw (any turns), (3 + 4 N,)."""
        return self._data.qpos.copy()

    @property
    def pusher(self) -> np.ndarray:
        """Position (3,) of the controlled point."""
        return self._data.qpos[:3].copy()

    @property
    def objects(self) -> np.ndarray:
        """Each object's x, y, z and yaw in [-pi, pi], (N, 4)."""
        rows = self._data.qpos[3:].reshape(-1, 4).copy()
        rows[:, 3] = np.arctan2(np.sin(rows[:, 3]), np.cos(rows[:, 3]))
        return rows

    def place(self, poses: np.ndarray, pusher_x: float) -> None:
        """Put objects at rest at poses (N, 3) and the pusher at (pusher_x, 0)."""
        heights = np.full(len(poses), rest_height(self.scene))
        objects = np.column_stack((poses[:, :2], heights, poses[:, 2]))
        self.set_state(np.array([pusher_x, 0.0, Z_BAND[0], *objects.ravel()]))

    def set_state(self, qpos: np.ndarray) -> None:
        """Put everything at rest at `qpos` (3 + 4 N,)."""
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = qpos
        self._data.ctrl[:] = qpos[:3]
        mujoco.mj_forward(self._model, self._data)

    def move(self, action: np.ndarray) -> None:
        """Ask for a displacement of the pusher, `action` (3,) in [-1, 1], and wait 0.316 s."""
        wanted = self._data.qpos[:3] + ACTION_METRES * np.clip(action, -1, 1)
        self._data.ctrl[:] = np.clip(wanted, self._low, self._high)
        mujoco.mj_step(self._model, self._data, nstep=STEPS)

    # Frames.

    def draw(
        self, camera: str, colors: np.ndarray, scene_callback: Callable | None = None
    ) -> np.ndarray:
        """Draw a frame (height, width, 3) uint8; objects are in RGBA `colors` (N, 4)."""
        check_process()
        renderer = shared_renderer(self._model, *self._size, self._quality)
        self._model.geom_rgba[self._geoms] = colors[:, None]  # the model is not this table's own
        mujoco.mj_kinematics(self._model, self._data)  # leaves the solver's warm start alone
        renderer.update_scene(self._data, camera=camera)
        if scene_callback:
            scene_callback(renderer.scene)
        return renderer.render()

    def draw_ghosts(self, scene: mujoco.MjvScene, rows: np.ndarray, colors: np.ndarray) -> None:
        """Add to a scene the ghosts of a state's rows (N + 1, 2 or 3), pusher first."""
        height = rest_height(self.scene)
        for (x, y, *yaw), color in zip(rows[1:], colors, strict=False):
            angle = yaw[0] if yaw else 0.0
            cos, sin = np.cos(angle), np.sin(angle)
            quaternion = np.array([np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)])
            for (u, v), size in parts(self.scene):
                at = np.array([x + cos * u - sin * v, y + sin * u + cos * v, height])
                add_ghost(scene, BOX, np.array(size) / 2, at, quaternion, color)
        at = np.array([*rows[0, :2], Z_BAND[0]])
        add_ghost(scene, SPHERE, np.full(3, 0.012), at, UPRIGHT, np.ones(4))
