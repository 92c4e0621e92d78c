"""States, observations and infos of the robot's table.

Everything measured is computed once per step, by `_measure`; OGBench does it three times, with
look-ups by name. The numbers are the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.rendering import without_backend
from envs.tabletop import table
from envs.tabletop.frames import Frames, yaw_angles

with without_backend():
    import mujoco


class Measures(Frames):
    """The part of `envs.tabletop.simulation.Tabletop` that measures and observes."""

    ob_type: str  # "states", "states_clean" or "pixels"

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

    def get_reset_info(self) -> dict[str, Any]:
        """Return the state and, in task modes, the goal (`goal`, `state_goal`, ...)."""
        goal = self._goal if self._mode == "task" else {}
        return self.compute_ob_info() | {"state_obs": self._state} | goal

    def get_step_info(self) -> dict[str, Any]:
        """Return the state and how the step went."""
        return self.compute_ob_info() | {
            "state_obs": self._state,
            "success": self._success,
            "success_frac": self._success_frac,
            "was_agent_object_interaction": self._interaction,
        }
