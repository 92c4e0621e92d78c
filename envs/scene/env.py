"""The environment behind the task `visual-scene-v0`: OGBench's scene with other tasks and rules.

The arm moves a cube (or two), presses two buttons, and opens and closes a drawer and a window that
the buttons lock. Robot, control, physics and observation vector are OGBench's `SceneEnv`; tasks,
success, reward, cameras and the arm's starts follow the HECRL benchmark (`envs/scene/rules.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from common.foundation.errors import UserError
from envs.scene import rules
from envs.scene.simulation import SceneTable
from envs.tabletop.table import AWAY, MOVED_DISTANCE, distances


class VisualSceneEnv(SceneTable):
    """A cube, two buttons, a drawer and a window that a robot arm has to bring to a goal.

    Differs from the reference: a task that is not chosen is drawn from `np_random`, not from
    numpy's global generator. Under the option `{"task_id": 1 to 5}` of `reset` it is chosen (mode
    "task"); `UserError` if it does not exist.
    """

    # Episodes.

    def _begin(self, options: dict[str, Any]) -> None:
        """Start a task or a collection."""
        if self._mode == "task":
            self._start_task(options)
        else:
            self._start_collection()
        self._recolor(rules.in_place(self._objects(), self._target).cubes)

    def _start_task(self, options: dict[str, Any]) -> None:
        """Choose a task, record its goal, and go to its start, displaced a little."""
        task_id = options.get("task_id")
        if task_id is None:
            task_id = int(self.np_random.integers(1, len(rules.TASKS) + 1))
        if task_id not in rules.TASKS:
            allowed = ", ".join(map(str, rules.TASKS))
            raise UserError(f"task_id={task_id} is not known; allowed: {allowed}")
        task = rules.TASKS[task_id]
        order = self.np_random.permutation(self.num_cubes)
        self._target = task.goal._replace(cubes=task.goal.cubes[order])
        self._make_goal(self._place_goal, bool(options.get("render_goal", False)))
        self.initialize_arm()
        self._place_start(task.start._replace(cubes=task.start.cubes[order]))
        self._settle_start()

    def _place_goal(self) -> None:
        still = np.zeros(self.num_cubes)
        self._place_objects(self._target, still)
        self._place_targets(self._target.cubes, still)

    def _place_start(self, start: rules.Objects) -> None:
        """Place a task's start, everything up to `JITTER` beside it and the cubes turned."""
        rng, jitter = self.np_random, rules.JITTER
        cubes, yaws = start.cubes.copy(), np.empty(self.num_cubes)
        for i in range(self.num_cubes):
            cubes[i, :2] += rng.uniform(-jitter, jitter, 2)
            yaws[i] = rng.uniform(0, 2 * np.pi)
        drawer = np.clip(start.drawer + rng.uniform(-jitter, jitter), rules.DRAWER_OPEN, 0)
        window = np.clip(start.window + rng.uniform(-jitter, jitter), 0, rules.WINDOW_OPEN)
        self._place_objects(rules.Objects(cubes, start.buttons, drawer, window), yaws)

    def _start_collection(self) -> None:
        """Draw arm, cubes, buttons, drawer and window, and the first target."""
        rng = self.np_random
        self.initialize_arm()
        self._scatter_cubes()
        self._cur_button_states = rng.integers(2, size=rules.BUTTONS)
        slides = rng.uniform(rules.DRAWER_OPEN, 0), rng.uniform(0, rules.WINDOW_OPEN)
        self._data.qpos[self._slide_qpos] = slides
        self._settle_start()
        cubes = np.tile(AWAY, (self.num_cubes, 1))
        self._place_targets(cubes, np.zeros(self.num_cubes))
        self._target = rules.Objects(cubes, np.zeros(rules.BUTTONS, np.int64), 0.0, 0.0)
        self._job = rules.Job("button")
        self._draw_target(0.5)

    def _settle_start(self) -> None:
        self._prev_button_states = self._cur_button_states.copy()
        super()._settle_start()

    def _draw_target(self, p_stack: float) -> None:
        now = self._objects()
        rule = self.settings.published_drawer_rule
        self._job = rules.draw_job(self.np_random, now, self._job, p_stack, rule)
        self._target = rules.aim(self._target, now, self._job)
        if self._job.task == "cube":
            yaws = np.zeros(self.num_cubes)
            yaws[self._job.cube] = self._job.yaw
            self._place_targets(self._target.cubes, yaws)

    # Steps.

    def _judge(self) -> float:
        """Set success and interaction after a step; return its reward.

        It is an interaction if a cube, button, drawer or window moved by 1e-4 m or more; the
        reference has no such figure for the scene.
        """
        now = self._objects()
        placed = rules.in_place(now, self._target)
        if self._mode == "task":
            self._success_frac = float(rules.fraction(placed))
            self._success = self._success_frac == 1
        else:
            self._success = rules.reached(self._job, placed)
        moved = distances(now.cubes, self._prev_qpos[self._cube_qpos[:, :3]])
        joints = np.concatenate((self._button_qpos, self._slide_qpos))
        slid = np.abs(self._data.qpos[joints] - self._prev_qpos[joints])
        self._interaction = bool(max(moved.max(), slid.max()) >= MOVED_DISTANCE)
        self._recolor(placed.cubes)
        return float(rules.reward(placed, self.reward_mode))

    def _recolor(self, placed: np.ndarray) -> None:
        """Under `visualize_info`, show which cubes (N,) are in place."""
        if self._visualize_info:
            colors = rules.PLACED_COLORS, rules.CUBE_COLORS
            self._cube_colors = np.where(placed[:, None], *(c[: self.num_cubes] for c in colors))

    def add_object_info(self, ob_info: dict[str, Any]) -> None:
        """Add the objects and, while collecting, the target."""
        super().add_object_info(ob_info)
        if self._mode == "task":
            return
        job, target = self._job, self._target
        self._add_target_info(ob_info, job.task, job.cube)
        top = self._data.site_xpos[self._button_site_ids[job.button]]
        ob_info["privileged/target_button"] = job.button
        ob_info["privileged/target_button_state"] = int(target.buttons[job.button])
        ob_info["privileged/target_button_top_pos"] = top.copy()
        for i, (name, slide) in enumerate((("drawer", target.drawer), ("window", target.window))):
            ob_info[f"privileged/target_{name}_pos"] = np.array([slide])
            ob_info[f"privileged/target_{name}_handle_pos"] = self._handle_at(i, slide)
