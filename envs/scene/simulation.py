"""The simulated scene: OGBench's, with one or two cubes, a side camera and a smaller arm box."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from common.foundation.messages import warn
from envs.rendering import add_ghost, without_backend
from envs.scene import rules
from envs.tabletop import table
from envs.tabletop.frames import UPRIGHT, yaw_angles
from envs.tabletop.simulation import Tabletop

with without_backend():
    import mujoco
    from ogbench.manipspace.envs.scene_env import SceneEnv

if TYPE_CHECKING:
    from envs.scene.world import SceneSettings

SIDE_CAMERA = {"pos": (0.400, -0.505, 0.762), "xyaxes": (1, 0, 0, 0, 0.771, 0.637)}
SECOND_CUBE = (0.3, 0.1, 0.02)  # where the model has it before it is placed
TARGET_SITE = (0.0, 0.0, 0.0001)  # of OGBench's target sites, seen from the handles
# Half sizes of the ghosts' shapes, metres.
BAR_OF_DRAWER, BAR_OF_WINDOW = np.array([0.05, 0.012, 0.012]), np.array([0.012, 0.012, 0.045])
BUTTON_DISC = np.array([0.018, 0.004, 0.0])


class SceneTable(Tabletop, SceneEnv):
    """Robot, cubes, buttons, drawer and window, without episodes."""

    env_type = "scene"
    others: ClassVar[dict[str, int]] = {
        "states": 4 * rules.BUTTONS + 2 * 2,
        "states_clean": 2 * rules.BUTTONS + 2,
    }

    def __init__(self, settings: SceneSettings, **kwargs: Any) -> None:
        super().__init__(settings, "side_pixels", **kwargs)
        self._cube_colors = rules.CUBE_COLORS[: self.num_cubes]
        self._arm_sampling_bounds = rules.ARM_BOX

    # The model.

    def add_objects(self, arena_mjcf: Any) -> None:
        """Add OGBench's objects, a second cube if there is one, and the side camera."""
        self._num_cubes = 1  # of OGBench's description
        super().add_objects(arena_mjcf)
        self._num_cubes = self.num_cubes
        arena_mjcf.worldbody.add("camera", name="side_pixels", **SIDE_CAMERA)
        if self.num_cubes == 2:
            self._add_second_cube(arena_mjcf)

    def _add_second_cube(self, arena_mjcf: Any) -> None:
        """Add cube 1 right after cube 0, so that qpos has the cubes side by side."""
        world = arena_mjcf.worldbody
        place = list(world.all_children()).index(world.find("body", "object_target_0")) + 1
        target = world.insert("body", place, name="object_target_1", mocap="true")
        cube = world.insert("body", place, name="object_1", pos=SECOND_CUBE)
        cube.add("freejoint", name="object_joint_1")
        geom = cube.add("geom", name="object_1", dclass="cube")
        ghost = {"contype": 0, "conaffinity": 0}
        ghost_geom = target.add("geom", name="target_object_1", dclass="cube", **ghost)
        self._cube_geoms_list.append([geom])
        self._cube_target_geoms_list.append([ghost_geom])

    def compile_model_and_data(self) -> None:
        """Take the model that all scenes of this make in the process share."""
        super().compile_model_and_data()
        joints = [self._model.joint(f"buttonbox_joint_{i}") for i in range(rules.BUTTONS)]
        slides = [self._model.joint(name) for name in ("drawer_slide", "window_slide")]
        self._button_qpos = np.array([joint.qposadr[0] for joint in joints])
        self._button_dofs = np.array([joint.dofadr[0] for joint in joints])
        self._slide_qpos = np.array([joint.qposadr[0] for joint in slides])
        self._slide_dofs = np.array([joint.dofadr[0] for joint in slides])
        cubes = [self._model.joint(f"object_joint_{i}") for i in range(self.num_cubes)]
        self._cube_dofs = np.array([joint.dofadr[0] for joint in cubes])[:, None] + np.arange(6)
        self._slide_ids = np.array([joint.id for joint in slides])
        self._button_site_ids = [self._model.site(f"btntop_{i}").id for i in range(rules.BUTTONS)]
        buttons = [self._model.geom(f"btngeom_{i}").id for i in range(rules.BUTTONS)]
        self._button_geoms = np.array(buttons)[:, None]
        handles = ("drawer_handle", "window_handle")
        sites = [self._model.site(f"{name}_center").id for name in handles]
        self._handle_sites = np.array(sites)
        self._handle_materials = np.array([self._model.material(name).id for name in handles])
        self._check_layout()

    def _check_layout(self) -> None:
        """Make sure that the columns which datasets and rewards use are the joints' addresses."""
        layout = rules.qpos_layout(self.num_cubes)
        expected = [layout[f"cube_{i}_xyz"][0] for i in range(self.num_cubes)]
        expected += [*range(*layout["buttons"]), layout["drawer"][0], layout["window"][0]]
        found = [*self._cube_qpos[:, 0], *self._button_qpos, *self._slide_qpos]
        if found != expected:
            raise RuntimeError(f"OGBench has the joints at columns {found}, not at {expected}")

    def _claim_model(self) -> None:
        """Lock or unlock drawer and window in the shared model."""
        damping = np.where(self._cur_button_states, rules.FREE_DAMPING, rules.LOCKED_DAMPING)
        self._model.dof_damping[self._slide_dofs] = damping

    def _apply_button_states(self) -> None:
        """Let the locks follow the buttons, instead of what OGBench does to its model."""
        self._forward()

    def _place_objects(self, things: rules.Objects, yaws: np.ndarray) -> None:
        """Move cubes, drawer and window and set the buttons' states."""
        self._place_cubes(things.cubes, yaws)
        self._cur_button_states = np.array(things.buttons)
        self._data.qpos[self._slide_qpos] = things.drawer, things.window

    def _objects(self) -> rules.Objects:
        """Return where everything is."""
        drawer, window = self._data.qpos[self._slide_qpos]
        cubes = self._data.qpos[self._cube_qpos[:, :3]]
        return rules.Objects(cubes, self._cur_button_states.copy(), drawer, window)

    def _restart(self, seed: int | None) -> None:
        self._cur_button_states = np.zeros(rules.BUTTONS, np.int64)
        super()._restart(seed)

    def _simulate(self, action: np.ndarray) -> None:
        """Advance by one control step; a button that was pressed in it changes its state."""
        self._prev_button_states = self._cur_button_states.copy()
        super()._simulate(action)
        if self._mode == "task":
            self._rescue_cubes()
        before, now = self._prev_qpos[self._button_qpos], self._data.qpos[self._button_qpos]
        self._cur_button_states ^= (before > rules.PRESSED) & (now <= rules.PRESSED)
        self._apply_button_states()

    def _rescue_cubes(self) -> None:
        """Put all cubes back on the table if one has left the world.

        The simulation throws a cube away, rarely, for instance when the drawer is locked while it
        moves with the cube inside.
        """
        cubes = self._data.qpos[self._cube_qpos[:, :3]]
        low, high = rules.WORKSPACE + np.array([[-rules.LOST_DISTANCE], [rules.LOST_DISTANCE]])
        if ((cubes > low) & (cubes < high)).all():
            return
        warn("a cube was thrown out of the scene; the cubes are placed anew")
        self._scatter_cubes()
        # Differs from the reference, which stops cube 0 only.
        self._data.qvel[self._cube_dofs] = 0.0
        mujoco.mj_forward(self._model, self._data)

    def _scatter_cubes(self) -> None:
        """Draw a place on the table and a yaw for each cube."""
        size = self.num_cubes
        positions = np.full((size, 3), table.TABLE_Z)
        positions[:, :2] = self.np_random.uniform(*rules.CUBE_BOX, (size, 2))
        self._place_cubes(positions, self.np_random.uniform(0, 2 * np.pi, size))

    # Observations.

    def _measure(self) -> None:
        self._depths = self._data.qpos[self._button_qpos]
        self._slides = self._data.qpos[self._slide_qpos]
        super()._measure()

    def _clean_state(self) -> np.ndarray:
        """Return arm, cubes, (state, depth) of each button, drawer, window."""
        pairs = np.stack((self._cur_button_states, self._depths * rules.BUTTON_SCALE), axis=1)
        slides = self._slides * (rules.DRAWER_SCALE, rules.WINDOW_SCALE)
        return np.concatenate((super()._clean_state(), pairs.ravel(), slides))

    def _full_state(self) -> np.ndarray:
        velocity, clean = self._data.qvel, self._state[-2 * rules.BUTTONS - 2 :]
        one_hot = np.eye(2)[self._cur_button_states]
        depths = clean[1 : 2 * rules.BUTTONS : 2]
        buttons = np.column_stack((one_hot, depths, velocity[self._button_dofs]))
        slides = np.column_stack((clean[-2:], velocity[self._slide_dofs]))
        return np.concatenate((super()._full_state(), buttons.ravel(), slides.ravel()))

    def add_object_info(self, ob_info: dict[str, Any]) -> None:
        """Add cubes, buttons, drawer and window."""
        super().add_object_info(ob_info)
        data = self._data
        for i, (qpos, dof) in enumerate(zip(self._button_qpos, self._button_dofs, strict=True)):
            ob_info[f"privileged/button_{i}_state"] = int(self._cur_button_states[i])
            ob_info[f"privileged/button_{i}_pos"] = data.qpos[[qpos]]
            ob_info[f"privileged/button_{i}_vel"] = data.qvel[[dof]]
        quaternion = np.empty(4)
        for i, name in enumerate(("drawer", "window")):
            site = self._handle_sites[i]
            mujoco.mju_mat2Quat(quaternion, data.site_xmat[site])
            ob_info[f"privileged/{name}_pos"] = self._slides[[i]]
            ob_info[f"privileged/{name}_vel"] = data.qvel[self._slide_dofs[[i]]]
            ob_info[f"privileged/{name}_handle_pos"] = data.site_xpos[site].copy()
            ob_info[f"privileged/{name}_handle_yaw"] = yaw_angles(quaternion[None])
        ob_info["prev_button_states"] = self._prev_button_states.copy()
        ob_info["button_states"] = self._cur_button_states.copy()

    def _handle_at(self, index: int, slide: float) -> np.ndarray:
        """Return where the handle (3,) of drawer (0) or window (1) is at a position of its slide.

        OGBench puts a site there and moves it in the model, which is shared here.
        """
        axis = self._data.xaxis[self._slide_ids[index]]
        moved = (slide - self._slides[index]) * axis
        return self._data.site_xpos[self._handle_sites[index]] + moved + TARGET_SITE

    # Frames.

    def _paint(self) -> None:
        super()._paint()
        lamps = rules.LAMP_COLORS[self._cur_button_states]
        self._model.geom_rgba[self._button_geoms] = lamps[:, None]
        self._model.mat_rgba[self._handle_materials] = lamps

    def _draw_subgoal(self, scene: mujoco.MjvScene, state: np.ndarray) -> None:
        super()._draw_subgoal(scene, state)
        *_, lamp_0, _, lamp_1, _, drawer, window = state
        box, disc = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER
        handle = self._handle_at(0, drawer / rules.DRAWER_SCALE)
        add_ghost(scene, box, BAR_OF_DRAWER, handle, UPRIGHT, rules.HANDLE_GHOST)
        handle = self._handle_at(1, window / rules.WINDOW_SCALE)
        add_ghost(scene, box, BAR_OF_WINDOW, handle, UPRIGHT, rules.HANDLE_GHOST)
        for site, lamp in zip(self._button_site_ids, (lamp_0, lamp_1), strict=True):
            top = self._data.site_xpos[site]
            add_ghost(scene, disc, BUTTON_DISC, top, UPRIGHT, rules.LAMP_COLORS[int(lamp > 0.5)])
