"""The environment `pushtetris-v0`: a round agent pushes Tetris pieces onto the marks of a picture.

An episode has N different pieces. Success is measured in the picture: the share of a piece's goal
pixels that show the piece.

Differs from the reference: all draws come from `np_random`, so `reset(seed=...)` reproduces an
episode; colours go by the piece, so a shorter `object_list` works; `info` has no frames, and what
only a task needs is not computed in a collection; actions are float32, as data stores them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium as gym
import numpy as np

from envs.environment import Environment
from envs.pushtetris import rules
from envs.pushtetris.contacts import colored, mark
from envs.pushtetris.drawing import Painter, Shapes
from envs.pushtetris.palette import INDICES
from envs.pushtetris.physics import Plane

if TYPE_CHECKING:
    from envs.pushtetris.world import PushTetrisSettings

OB_TYPES = ("states", "pixels")
TARGET_STEPS = 100  # control steps of a collection between two draws of the target piece
NO_SUCCESS = {"success": False, "success_frac": 0.0}  # in a collection, where there is no goal


class PushTetrisEnv(Environment):
    """One to seven pieces that an agent has to push to goal poses.

    Args:
        settings: the world's section of the configuration; it has N pieces of K kinds.
        ob_type: what `reset` and `step` return: "states" ((N + 1) (4 + K),) float32, see
            `rules.state_vector`, or "pixels" (size, size, 3) uint8.
        render_mode: None or "rgb_array".
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        settings: PushTetrisSettings,
        ob_type: str = "states",
        render_mode: str | None = None,
    ) -> None:
        if ob_type not in OB_TYPES:
            raise ValueError(f"ob_type must be one of {OB_TYPES}, not {ob_type!r}")
        self.mode, self.ob_type, self.reward_mode = settings.mode, ob_type, settings.reward_mode
        self.object_list, self.num_objects = settings.object_list, settings.num_objects
        self.render_mode = render_mode
        self._visualize_target = settings.visualize_target
        render_size = settings.render_size
        self._painter = Painter(render_size)
        self._chamfer_scale = rules.PLANE / render_size / rules.TYPICAL_CHAMFER
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        if ob_type == "pixels":
            shape = (render_size, render_size, 3)
            self.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        else:
            shape = ((self.num_objects + 1) * self._row_dim,)
            self.observation_space = gym.spaces.Box(-np.inf, np.inf, shape, np.float32)

    @property
    def _row_dim(self) -> int:
        """Features of a row of the state: pose, and one-hot of the agent and the K kinds."""
        return rules.POSE_DIM + 1 + len(self.object_list)

    # Episodes.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; the option `{"render_goal": True}` adds a frame of the goal."""
        super().reset(seed=seed)
        self._kinds = self.np_random.choice(len(self.object_list), self.num_objects, replace=False)
        self._names = [self.object_list[kind] for kind in self._kinds]
        self._shapes = Shapes.of(self._names)
        self._colors = np.array([INDICES[name] for name in self._names])[:, None, None]
        self._plane = Plane([rules.PIECES[name] for name in self._names])
        self._steps = 0
        self._targets = None
        goal = self._make_goal(bool((options or {}).get("render_goal", False)))
        self._place()
        if self.mode == rules.COLLECTION:
            self._draw_target()
        elif self._visualize_target:
            self._targets = self._shapes, self._goal_poses
        self._look()
        return self._observe(), self._info() | goal

    def _place(self) -> None:
        """Scatter agent and pieces."""
        self._plane.place(rules.scattered(self.np_random, self.num_objects))
        self._poses = self._plane.poses

    def _make_goal(self, rendered: bool) -> dict[str, Any]:
        """Draw the goal and keep what success needs of it; return what a task says of it."""
        self._place()
        self._goal_poses = self._poses[1:]
        if self.mode == rules.COLLECTION:
            return {}
        self._look()
        self._goal_masks, self._goal_bits = self._masks, self._bits
        self._goal_area = np.bitwise_count(self._bits).sum(axis=1)
        self._chamfers = np.full(self.num_objects, np.nan)
        self._judged_bits = self._bits
        self._max_coverage, self._min_chamfer = 0.0, np.inf
        return {
            "goal": self._observe(),
            "state_goal": self._state(),
            "goal_rendered": self.frame() if rendered else None,
        }

    def _draw_target(self) -> None:
        """Draw the piece that a collection plays with next."""
        self._target = target = int(self.np_random.integers(self.num_objects))
        if self._visualize_target:
            self._targets = Shapes.of([self._names[target]]), self._goal_poses[[target]]

    def _look(self) -> None:
        """Draw the present state: the picture and the masks of the pieces in it."""
        bodies = self._shapes, self._poses
        self._picture = self._painter.scene(*bodies, self._targets, self._plane.order)
        self._marks = mark(self._picture, self._plane.contacts)
        self._masks = self._picture == self._colors
        self._bits = np.packbits(self._masks.reshape(self.num_objects, -1), axis=1)

    # Steps.

    def _advance(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        before = self._poses[1:]
        self._plane.move(action)
        self._poses = self._plane.poses
        interaction = bool(rules.moved(before, self._poses[1:]))
        self._steps += 1
        if self.mode == rules.COLLECTION and self._steps % TARGET_STEPS == 0:
            self._draw_target()
        self._look()
        reward, figures = self._judge() if self.mode == rules.TASK else (0.0, NO_SUCCESS)
        info = self._info() | figures | {"was_agent_object_interaction": interaction}
        return self._observe(), reward, False, False, info

    def _judge(self) -> tuple[float, dict[str, Any]]:
        """Compare the picture with the goal's; return the reward and the figures for the info."""
        common = np.bitwise_count(self._bits & self._goal_bits).sum(axis=1)
        covered = rules.coverage(common, self._goal_area)
        # The dearest figure by far, so only of the pieces that look different than before.
        stale = np.isnan(self._chamfers) | (self._bits != self._judged_bits).any(axis=1)
        for piece in np.flatnonzero(stale):
            self._chamfers[piece] = rules.chamfer(self._masks[piece], self._goal_masks[piece])
        self._judged_bits = self._bits
        chamfer = float(self._chamfers.mean()) * self._chamfer_scale
        self._max_coverage = max(self._max_coverage, float(covered.mean()))
        self._min_chamfer = min(self._min_chamfer, chamfer)
        placed = covered >= rules.COVERED
        return float(rules.reward(covered, self.reward_mode)), {
            "success": bool(placed.all()),
            "success_frac": float(placed.mean()),
            "final_coverage": float(covered.mean()),
            "max_coverage": self._max_coverage,
            "final_chamfer": chamfer,
            "min_chamfer": self._min_chamfer,
        }

    def _observe(self) -> np.ndarray:
        return self.frame() if self.ob_type == "pixels" else self._state()

    def _state(self) -> np.ndarray:
        return rules.state_vector(self._poses, self._kinds, len(self.object_list))

    def _info(self) -> dict[str, Any]:
        info = {
            "state_obs": self._state(),
            "image_bitmasks": self._bits.copy(),
            "obj_type_idxs": self._kinds.copy(),
            "pos_agent": self._poses[0, :2].copy(),
            "vel_agent": self._plane.agent_velocity,
            "block_pose": self._poses[1:].copy(),
        }
        return info | ({"target_block": self._target} if self.mode == rules.COLLECTION else {})

    # Frames.

    def frame(self) -> np.ndarray:
        """Return the picture of the present state, (size, size, 3) uint8."""
        return colored(self._picture, self._marks)

    def _draw(self) -> np.ndarray:
        return self.frame()

    def subgoal_frame(self, state: np.ndarray) -> np.ndarray:
        """Return the frame with the bodies of a state (S,) as outlines in their colours.

        A generated state says of each row by its largest one-hot feature which body it is of.
        """
        rows = np.asarray(state, np.float64).reshape(-1, self._row_dim)
        kinds = rows[:, rules.POSE_DIM :].argmax(axis=1)
        poses = rows[:, : rules.POSE_DIM]
        shapes = Shapes.of([self.object_list[kind - 1] for kind in kinds if kind])
        picture = self._picture.copy()
        self._painter.outline(picture, shapes, poses[kinds > 0], poses[kinds == 0])
        return colored(picture, self._marks)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self)
