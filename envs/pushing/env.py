"""The environment `pushing-v0`: a pusher brings objects on a table to the places of a goal.

Observation, control, starts, goals, success and reward are those of ECRL (Haramati et al., ICLR
2024). Differs from the reference: all draws come from `np_random`; goals are placed, not swept by
the arm; colours are drawn per episode; frames are drawn only when they are wanted.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium as gym
import numpy as np

from envs.environment import Environment
from envs.pushing import rules
from envs.pushing.modes import make_mode
from envs.pushing.physics import FALLEN, Table
from envs.rendering import side_by_side

if TYPE_CHECKING:
    from envs.pushing.modes import PushingSettings

OB_TYPES = ("states", "pixels")
CAMERAS = ("front", "side")


class PushingEnv(Environment):
    """N objects that a pusher has to bring to their goals.

    Args:
        settings: the world's section of the configuration.
        ob_type: what `reset` and `step` return: "states" (rows of pusher and objects, one after
            another, float32) or "pixels" (height, width, 3) uint8.
        multiview: frames of a front and a side camera, (2, height, width, 3), not the front alone.
        render_mode: None or "rgb_array".

    Raises:
        UserError: by `reset`, `step` and `render` if frames are wanted and cannot be drawn.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 3}

    def __init__(
        self,
        settings: PushingSettings,
        ob_type: str = "states",
        multiview: bool = False,
        render_mode: str | None = None,
    ) -> None:
        if ob_type not in OB_TYPES:
            raise ValueError(f"ob_type must be one of {OB_TYPES}, not {ob_type!r}")
        self.law, self.ob_type, self.render_mode = make_mode(settings), ob_type, render_mode
        self.num_objects, self._scene = self.law.num_objects, self.law.scene
        self._cameras = CAMERAS if multiview else CAMERAS[:1]
        self.size = settings.height, settings.width
        self.table = Table(self._scene, self.num_objects, self.size, settings.render_quality)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.observation_space = self._make_observation_space()

    def _make_observation_space(self) -> gym.spaces.Box:
        if self.ob_type == "pixels":
            views = (len(self._cameras),) if len(self._cameras) > 1 else ()
            return gym.spaces.Box(0, 255, (*views, *self.size, 3), np.uint8)
        width = (self.num_objects + 1) * self._scene.row_dim
        return gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)

    # Episodes.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; the option `{"render_goal": True}` adds a frame of the goal.

        Drawn in this order: colours, goal, start.
        """
        super().reset(seed=seed)
        self._colors = np.ones((self.num_objects, 4))
        self._colors[:, :3] = rules.PALETTE[self.law.draw_colors(self.np_random)]
        goal = self._make_goal(bool((options or {}).get("render_goal", False)))
        self.table.place(self.law.draw_start(self.np_random), self._scene.home)
        self._look()
        return self._observe(), self._info() | goal

    def _make_goal(self, render: bool) -> dict[str, Any]:
        """Place the objects where they are wanted, the pusher retracted, and keep what is seen."""
        self.table.place(self.law.draw_goal(self.np_random), self._scene.retracted)
        self._look()
        rows = self._rows[: 1 + self.law.goal_objects]
        self.goal_rows, wanted = rows[1:], rows.astype(np.float32).ravel()
        self._goal_of = np.arange(self.num_objects) % len(self.goal_rows)
        pixels, picture = self.ob_type == "pixels", None
        if render or pixels:
            picture = self._frames(self.law.goals_shown)
        return {
            "goal": picture if pixels else wanted,
            "state_goal": wanted,
            "goal_rendered": picture if render else None,
        }

    # Steps.

    def _advance(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One action (3,) takes 0.316 s."""
        before = self._objects
        self.table.move(action)
        self._look()
        moved = bool((abs(self._objects - before)[:, :2] > rules.MOVED).any())
        error = rules.errors(self._rows[1:], self.goal_rows[self._goal_of])
        info = self._info() | self._figures(error) | {"was_agent_object_interaction": moved}
        reward = float(rules.reward(error, self._scene.scale))
        return self._observe(), reward, False, False, info

    def _figures(self, error: np.ndarray) -> dict[str, Any]:
        """Return what `Pushing.metrics` names, from the objects' errors (N,)."""
        reached = error < self.law.within
        figures = {
            "success": bool(reached.all()),
            "success_frac": float(reached.mean()),
            "mean_distance": float(error.mean()),
            "max_distance": float(error.max()),
            "fallen": int((self._objects[:, 2] < FALLEN).sum()),
        }
        if self._scene.blocks:
            figures |= {f"yaw_error_{i}": float(value) for i, value in enumerate(error)}
        if len(self.goal_rows) < self.num_objects:
            figures["sorted_frac"] = rules.sorted_fraction(self._rows[1:], self.goal_rows)
        return figures

    # Observations.

    def _look(self) -> None:
        """Take the objects (N, 4) and the state's rows (N + 1, 2 or 3) from the table."""
        self._objects = self.table.objects
        self._rows = np.zeros((1 + self.num_objects, self._scene.row_dim))
        self._rows[0, :2] = self.table.pusher[:2]
        self._rows[1:] = self._objects[:, [0, 1, 3][: self._scene.row_dim]]
        self._rows[:, :2] = self._rows[:, :2].clip(-rules.LARGEST_XY, rules.LARGEST_XY)

    def _state(self) -> np.ndarray:
        return self._rows.astype(np.float32).ravel()

    def _observe(self) -> np.ndarray:
        return self._frames() if self.ob_type == "pixels" else self._state()

    def _info(self) -> dict[str, Any]:
        return {"state_obs": self._state(), "qpos": self.table.qpos}

    # Frames.

    def _frames(self, shown: int | None = None, **kwargs: Any) -> np.ndarray:
        """Draw the cameras of `ob_type="pixels"`, with the first `shown` objects alone."""
        colors = self._colors.copy()
        colors[shown or self.num_objects :, 3] = 0
        frames = [self.table.draw(camera, colors, **kwargs) for camera in self._cameras]
        return np.stack(frames) if len(frames) > 1 else frames[0]

    def object_masks(self) -> np.ndarray:
        """Return which pixels of each camera show an object: (cameras, height, width) booleans."""
        hidden = self._colors.copy()
        hidden[:, 3] = 0
        masks = []
        for camera in self._cameras:
            seen, empty = (self.table.draw(camera, own) for own in (self._colors, hidden))
            masks.append((seen != empty).any(axis=-1))
        return np.stack(masks)

    def frame(self) -> np.ndarray:
        """Draw all cameras side by side (height, cameras * width, 3), for people to look at."""
        return side_by_side(self._frames())

    _draw = frame

    def subgoal_frame(self, state: np.ndarray) -> np.ndarray:
        """Draw `frame` with the pusher and the objects of a state (S,) as ghosts."""
        rows = np.asarray(state, np.float64).reshape(-1, self._scene.row_dim)
        ghosts = partial(self.table.draw_ghosts, rows=rows, colors=self._colors)
        return side_by_side(self._frames(scene_callback=ghosts))

    def replay(self, qpos: np.ndarray) -> np.ndarray:
        """Draw `frame` of a stored `qpos` (3 + 4 N,)."""
        self.table.set_state(qpos)
        return self.frame()
