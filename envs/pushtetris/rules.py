"""Pieces, colours, places, success and rewards of Push-Tetris. Plain arrays, no simulator.

The plane is a square of 512 x 512 units, x to the right, y down, angles in radians from x to y.
Everything about success is counted in pixels of the square picture of the plane: where a piece is
to be is known by the pixels that it shows. N pieces, M = size * size / 8 bytes of a packed mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    Array = TypeVar("Array", np.ndarray, Tensor)

PLANE = 512  # units of a side
CELLS = (128, 256, 384)  # of both coordinates: starts and goals lie on this grid
ACTION_UNITS = 100.0  # distance that an action of 1 asks for
AGENT_RADIUS = 15
COVERED = 0.85  # share of a goal's pixels from which it counts as reached
MOVED_DISTANCE = 3.0  # in one step, |dx| + |dy|, from which a piece counts as moved
TYPICAL_CHAMFER = 41.0 * 4  # units between a random start and its goal, as the reference has it

TASK, COLLECTION = "task", "data_collection"
MODES = (TASK, COLLECTION)
REWARD_MODES = ("sparse", "step", "dense")

POSE_DIM = 3  # x, y, angle: what a row of the state starts with, the agent's too


@dataclass(frozen=True)
class Piece:
    """A rigid body of rectangles (x0, x1, y0, y1) around its origin, and its colour (RGB)."""

    color: tuple[int, int, int]
    rectangles: tuple[tuple[int, int, int, int], ...]

    @property
    def corners(self) -> np.ndarray:
        """Corners (R, 4, 2) of the R rectangles, in the order the simulator keeps them."""
        return np.array(
            [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)] for x0, x1, y0, y1 in self.rectangles],
            np.float64,
        )

    @property
    def center_of_gravity(self) -> np.ndarray:
        """Plain mean (2,) of the rectangles' centres: not weighted by area, as in the reference."""
        return self.corners.mean(axis=(0, 1))

    @property
    def moment(self) -> float:
        """Sum of the moments of rectangles of mass 1 each about the origin.

        As in the reference, although the whole piece has mass 1 and turns about its centre.
        """
        sides = self.corners[:, 2] - self.corners[:, 0]
        centers = self.corners.mean(axis=1)
        return float((sides**2).sum() / 12 + (centers**2).sum())


PIECES = {
    "O": Piece((255, 255, 0), ((-30, 30, -30, 30),)),
    "I": Piece((0, 255, 255), ((-15, 15, -60, 60),)),
    "S": Piece((255, 0, 0), ((-60, 0, 0, 30), (-30, 30, -30, 0))),
    "Z": Piece((0, 255, 0), ((0, 60, 0, 30), (-30, 30, -30, 0))),
    "L": Piece((0, 0, 255), ((-30, 0, 0, 60), (-60, 0, -30, 0))),
    "J": Piece((255, 165, 0), ((0, 30, 0, 60), (0, 60, -30, 0))),
    "T": Piece((160, 32, 240), ((-45, 45, 0, 30), (-15, 15, 30, 60))),
}


def scattered(rng: np.random.Generator, num_objects: int) -> np.ndarray:
    """Draw poses (N + 1, 3) of agent and pieces: distinct grid cells, angles in [0, 2 pi).

    The agent's angle is 0.
    """
    cells = rng.choice(len(CELLS) ** 2, num_objects + 1, replace=False)
    column, row = cells % len(CELLS), cells // len(CELLS)
    angles = np.append(0.0, rng.uniform(0, 2 * np.pi, num_objects))
    return np.stack([np.take(CELLS, column), np.take(CELLS, row), angles], axis=1)


def state_vector(poses: np.ndarray, kinds: np.ndarray, num_kinds: int) -> np.ndarray:
    """Return the state ((N + 1) (4 + K),) float32 of poses (N + 1, 3) of agent and pieces.

    A row is x, y, angle and a one-hot: 0 for the agent, else 1 + the piece's index among the K =
    `num_kinds` kinds (`kinds`, (N,)). Nothing is scaled and angles are not wrapped.
    """
    identity = np.eye(1 + num_kinds)[np.append(0, kinds + 1)]
    return np.concatenate([poses, identity], axis=1).astype(np.float32).ravel()


def coverage(common: Array, wanted: Array) -> Array:
    """Return the share (...) of a goal's pixels that are covered, from numbers of pixels (...).

    `wanted` is the number of the goal's pixels, `common` of those that show the piece now.
    """
    return common / wanted.clip(min=1)


def reward(covered: Array, mode: str) -> Array:
    """Return the reward (...) for pieces with coverage (..., N).

    sparse: 0 if all goals are covered, else -1; step: minus the fraction not covered; dense: mean
    coverage minus 1. Differs from the reference, which takes any other word for "dense".
    """
    if mode == "dense":
        return covered.mean(-1) - 1.0
    placed = covered >= COVERED
    if mode == "sparse":
        return placed.all(-1) * 1.0 - 1.0
    return (placed * 1.0).mean(-1) - 1.0


def moved(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return whether a piece moved (...) between states (..., N, >= 2) of the pieces."""
    return (np.abs(after[..., :2] - before[..., :2]).sum(-1) >= MOVED_DISTANCE).any(-1)


def chamfer(seen: np.ndarray, wanted: np.ndarray) -> float:
    """Return the chamfer distance in pixels between two masks (size, size).

    The mean over the pixels of one mask of the distance to the nearest of the other, averaged over
    both directions; the picture's diagonal if a mask is empty.
    """
    from scipy.spatial import cKDTree  # takes a while to import: collecting does without

    if not (seen.any() and wanted.any()):
        return float(np.hypot(*seen.shape))
    here, there = cKDTree(np.argwhere(seen)), cKDTree(np.argwhere(wanted))
    ways = there.query(here.data)[0].mean(), here.query(there.data)[0].mean()
    return float(sum(ways)) / 2
