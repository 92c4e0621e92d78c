"""The table as MuJoCo simulates it: a pusher on three slide joints, objects that stay upright.

Free of contact the pusher is a unit mass on a critically damped spring, which is what the
reference's operational-space controller makes of its arm. Differs from the reference: objects have
no pitch and roll and touch the table with one foot, whose elliptic friction cone is the limit
surface of planar pushing, so nothing tilts and slips under the pusher; they still fall off edges.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from envs.pushing import rules
from envs.rendering import add_ghost, shared_renderer, without_backend

with without_backend():
    import mujoco

STEPS = 79  # of the simulator in an action
ACTION_METRES = 0.125  # that an action of 1 asks for
Z_BAND = (0.020, 0.035)  # of the controlled point: the pusher never passes over a cube
TIP = (0.0176, 0.0286, 0.060)  # size; its lower edge is 17.5 mm below the controlled point
FALLEN = -0.01  # z of an object's centre, below which it has left the table
UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0])

# Parts of an object: centre and size; its foot's x and the length of its torsional friction.
CUBE_PARTS = (((0.0, 0.0), (rules.CUBE,) * 3),)
BLOCK_PARTS = (((0.0, 0.0), (0.03, 0.09, 0.03)), ((0.045, 0.0), (0.06, 0.02, 0.03)))
CUBE_FOOT, BLOCK_FOOT = (0.0, 0.0134), (0.0138, 0.0295)

MODEL = """
<mujoco model="pushing">
  <option timestep="0.004" integrator="implicitfast" cone="elliptic" impratio="10" iterations="20"/>
  <visual>
    <headlight ambient="0.2 0.2 0.2" diffuse="0 0 0" specular="0 0 0"/>
    <global offwidth="{width}" offheight="{height}"/>
    <map znear="0.02" zfar="20"/>
  </visual>
  <default>
    <geom solref="0.008 1" solimp="0.98 0.99 0.001" friction="0.4" condim="3" density="1000"/>
    <default class="ground"><geom contype="0" conaffinity="2"/></default>
    <default class="foot">
      <geom type="sphere" size="0.003" contype="2" conaffinity="0" condim="4" priority="1" mass="0"
        rgba="0 0 0 0"/>
    </default>
    <default class="shown">
      <geom type="box" contype="0" conaffinity="0" mass="0" rgba="0.25 0.25 0.25 1"/>
    </default>
  </default>
  <asset>
    <texture name="tiles" type="2d" builtin="checker" rgb1="0.45 0.45 0.45" rgb2="0.5 0.5 0.5"
      width="128" height="128"/>
    <material name="tiles" texture="tiles" texrepeat="4 4" texuniform="true"/>
  </asset>
  <worldbody>
    {lights}
    <camera name="front" pos="0.8 0 0.775" xyaxes="0 1 0 -0.7517 0 0.6595" fovy="35"/>
    <camera name="side" pos="0 -0.8 0.625" xyaxes="1 0 0 0 0.6767 0.7363" fovy="35"/>
    <geom name="floor" class="ground" type="plane" size="5 5 1" pos="0 0 -1.025" material="tiles"/>
    <geom name="table" class="ground" type="box" size="{table}" pos="0 0 -0.025"
      rgba="0.9 0.9 0.9 1"/>
    {walls}
    <body name="pusher" gravcomp="1">
      <inertial pos="0 0 0" mass="1" diaginertia="0.01 0.01 0.01"/>
      <joint name="pusher_x" type="slide" axis="1 0 0"/>
      <joint name="pusher_y" type="slide" axis="0 1 0"/>
      <joint name="pusher_z" type="slide" axis="0 0 1"/>
      <geom name="tip" type="box" size="{tip}" pos="0 0 0.0125" rgba="0.25 0.25 0.25 1"/>
      <geom class="shown" size="0.02 0.035 0.02" pos="0 0 0.06"/>
      <geom class="shown" type="cylinder" size="0.012 0.2" pos="0 0 0.28"/>
    </body>
    {objects}
  </worldbody>
  <actuator>
    {actuators}
  </actuator>
</mujoco>
"""
LIGHT = """<light directional="true" castshadow="false" dir="{} {} -0.55" diffuse="0.4 0.4 0.4"
  ambient="0.05 0.05 0.05" specular="0.1 0.1 0.1"/>"""
WALL = '<geom type="box" size="{}" pos="{}" rgba="0.6 0.6 0.65 1"/>'
OBJECT = """<body name="object_{0}">
  <joint name="object_{0}_x" type="slide" axis="1 0 0"/>
  <joint name="object_{0}_y" type="slide" axis="0 1 0"/>
  <joint name="object_{0}_z" type="slide" axis="0 0 1"/>
  <joint name="object_{0}_yaw" type="hinge" axis="0 0 1"/>
  {1}
  <geom class="foot" pos="{2} 0 {3}" friction="0.6 {4} 0"/>
</body>"""
ACTUATOR = """<general joint="pusher_{}" gainprm="150" biastype="affine"
  biasprm="0 -150 -24.4949"/>"""


def _numbers(values: object) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def _box(center: tuple[float, ...], size: tuple[float, ...]) -> str:
    return f'<geom type="box" size="{_numbers(np.array(size) / 2)}" pos="{_numbers(center)}"/>'


def parts(scene: rules.Scene) -> tuple[tuple[tuple[float, float], tuple[float, ...]], ...]:
    """Return the boxes of an object: centre (x, y) and size."""
    return BLOCK_PARTS if scene.blocks else CUBE_PARTS


def rest_height(scene: rules.Scene) -> float:
    """Return z of the centre of an object that lies on the table."""
    return parts(scene)[0][1][2] / 2


def _describe(scene: rules.Scene, num_objects: int, width: int, height: int) -> str:
    foot, torsion = BLOCK_FOOT if scene.blocks else CUBE_FOOT
    boxes = "".join(_box((*center, 0.0), size) for center, size in parts(scene))
    bottom = 0.003 - rest_height(scene)
    walls = rules.WALLS if scene.corridor else ()
    return MODEL.format(
        width=max(width, 640),
        height=max(height, 480),
        lights="".join(LIGHT.format(x, y) for x in (-0.5, 0.5) for y in (-0.5, 0.5)),
        table=_numbers((*(side / 2 for side in scene.size), 0.025)),
        walls="".join(
            WALL.format(_numbers(np.array(size) / 2), _numbers((*center, size[2] / 2)))
            for center, size in walls
        ),
        tip=_numbers(np.array(TIP) / 2),
        objects="".join(
            OBJECT.format(i, boxes, foot, bottom, 0.6 * torsion) for i in range(num_objects)
        ),
        actuators="".join(map(ACTUATOR.format, "xyz")),
    )


@functools.lru_cache(maxsize=4)
def _compiled(scene: rules.Scene, num_objects: int, width: int, height: int) -> mujoco.MjModel:
    """Return a model that all environments of the process share, as they share its renderer."""
    return mujoco.MjModel.from_xml_string(_describe(scene, num_objects, width, height))


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
        renderer = shared_renderer(self._model, *self._size, self._quality)
        self._model.geom_rgba[self._geoms] = colors[:, None]  # the model is not this table's own
        mujoco.mj_forward(self._model, self._data)
        renderer.update_scene(self._data, camera=camera)
        if scene_callback:
            scene_callback(renderer.scene)
        return renderer.render()

    def draw_ghosts(self, scene: mujoco.MjvScene, rows: np.ndarray, colors: np.ndarray) -> None:
        """Add to a scene the ghosts of a state's rows (N + 1, 2 or 3), pusher first."""
        height = rest_height(self.scene)
        box, sphere = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_SPHERE
        for (x, y, *yaw), color in zip(rows[1:], colors, strict=False):
            angle = yaw[0] if yaw else 0.0
            cos, sin = np.cos(angle), np.sin(angle)
            quaternion = np.array([np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)])
            for (u, v), size in parts(self.scene):
                at = np.array([x + cos * u - sin * v, y + sin * u + cos * v, height])
                add_ghost(scene, box, np.array(size) / 2, at, quaternion, color)
        at = np.array([*rows[0, :2], Z_BAND[0]])
        add_ghost(scene, sphere, np.full(3, 0.012), at, UPRIGHT, np.ones(4))
