"""Tables, objects, rewards and success of the pushing tasks. Plain arrays, no simulator.

Metres and radians. The surface of the table is z = 0 and its centre the origin; x points away from
the robot, y to its left. N objects; a row of a state is x, y and, of T blocks, yaw. Numbers are
ECRL's (Haramati et al., ICLR 2024) but for the contacts, see `envs.pushing.physics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from common.foundation.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    Array = TypeVar("Array", np.ndarray, Tensor)

CUBE = 0.035  # edge
CORRIDOR_X = 0.12  # where the walls begin
WALLS = (  # centre (x, y) and size (x, y, z)
    ((0.18, 0.0675), (0.12, 0.08, 0.025)),
    ((0.18, -0.0675), (0.12, 0.08, 0.025)),
    ((0.245, 0.0), (0.01, 0.215, 0.025)),
)
MARGIN = 0.1  # of starts and goals from the edges of the table
MOVED = 1e-5  # in one action, from which an object counts as moved
LARGEST_XY = 1.1  # of a state: it bounds objects that fell far
TRIES = 10_000
FILLED = 0.35  # share of a region that objects drawn one after another fill without getting stuck

PALETTE = np.array(
    [
        (0.6, 0.1, 0.0),  # red
        (0.0, 0.6, 0.1),  # green
        (0.0, 0.1, 0.8),  # blue
        (0.7, 0.7, 0.0),  # yellow
        (0.5, 0.0, 0.5),  # purple
        (0.0, 0.9, 0.9),  # cyan
        (1.0, 0.4, 0.7),  # pink
        (0.55, 0.27, 0.07),  # brown
        (1.0, 0.55, 0.0),  # orange
    ]
)


@dataclass(frozen=True)
class Scene:
    """Scene that is simulated, besides the number of objects.

    Attributes:
        size: of the table in x and y. home: x of the pusher at the start, y is 0.
        corridor: whether walls stand at the far edge. blocks: T blocks instead of cubes.
    """

    size: tuple[float, float] = (0.5, 0.6)
    home: float = -0.002
    corridor: bool = False
    blocks: bool = False

    @property
    def row_dim(self) -> int:
        """Numbers of a row of the state."""
        return 3 if self.blocks else 2

    @property
    def scale(self) -> float:
        """Error at which the reward is -2: half the table's diagonal, or half a turn."""
        return np.pi if self.blocks else float(np.linalg.norm(self.size)) / 2

    @property
    def reach(self) -> np.ndarray:
        """Largest |x| and |y| of the pusher."""
        return np.array(self.size) / 2 + CUBE / 2

    @property
    def spacing(self) -> float:
        """Smallest distance between two objects at the start, and from the pusher."""
        return CUBE * np.sqrt(2) * (3 if self.blocks else 1)

    @property
    def retracted(self) -> float:
        """The pusher's x in goals, where it hides nothing."""
        return max(self.home - 0.23, -self.reach[0])


def scattered(
    rng: np.random.Generator, scene: Scene, count: int, box: np.ndarray | None = None
) -> np.ndarray:
    """Draw poses (count, 3) in |x, y| <= `box` (2,), separated from the pusher and each other.

    Cubes have yaw 0, T blocks any in (-pi, pi).
    """
    poses, taken = np.zeros((count, 3)), [np.array([scene.home, 0.0])]
    box = np.array(scene.size) / 2 - MARGIN if box is None else box
    for pose in poses:
        pose[:2] = _free(rng, box, np.array(taken), scene.spacing)
        taken.append(pose[:2])
        if scene.blocks:
            pose[2] = rng.uniform(-np.pi, np.pi)
    return poses


def _free(rng: np.random.Generator, box: np.ndarray, taken: np.ndarray, d: float) -> np.ndarray:
    for _ in range(TRIES):
        xy = rng.uniform(-box, box)
        if np.linalg.norm(taken - xy, axis=1).min() >= d:
            return xy
    raise RuntimeError(f"found no free place beside {len(taken) - 1} objects in {TRIES} tries")


def before_walls(poses: np.ndarray) -> np.ndarray:
    """Return poses (N, 3) of cubes, those that overlap a side wall moved back to touch it."""
    (_, y), (_, width, _) = WALLS[0]
    beside = abs(abs(poses[:, 1]) - y) < (width + CUBE) / 2
    back = np.where(beside, CORRIDOR_X - CUBE / 2, np.inf)
    return np.column_stack((np.minimum(poses[:, 0], back), poses[:, 1:]))


def capacity(scene: Scene) -> int:
    """Return how many objects `scattered` places reliably."""
    region = np.prod(np.array(scene.size) - 2 * MARGIN + scene.spacing)
    return int(FILLED * region / (np.pi * scene.spacing**2 / 4))


def check_count(value: int, most: int, mode: str, key: str = "num_objects") -> None:
    """Raise `UserError` for more than `most`."""
    if value > most:
        raise UserError(f"{key}={value} is not possible in mode={mode}; allowed: 1 to {most}")


def errors(rows: Array, goals: Array) -> Array:
    """Return by how much objects (..., N, 2 or 3) miss theirs: metres, of T blocks radians.

    Of a T block only the yaw counts, in [-pi, pi].
    """
    if rows.shape[-1] == 3:
        return np.pi - abs(np.pi - abs(rows[..., 2] - goals[..., 2]))
    return ((rows - goals) ** 2).sum(-1) ** 0.5


def reward(error: Array, scale: float) -> Array:
    """Return the reward (...) for errors (..., N): -2 times their mean over `scale`."""
    return -2 * error.mean(-1) / scale


def sorted_fraction(positions: np.ndarray, spots: np.ndarray) -> float:
    """Return the share of cubes (N, 2) to which the spot of their colour is the nearest.

    Cube i has the colour of spot i mod K of `spots` (K, 2).
    """
    distance = np.linalg.norm(positions[:, None] - spots, axis=-1)
    return float((distance.argmin(1) == np.arange(len(positions)) % len(spots)).mean())
