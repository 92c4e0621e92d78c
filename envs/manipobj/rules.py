"""Places and rewards of all cube tasks. Plain arrays, no simulator.

Positions are in metres in the world frame, angles in radians. "Placed" means near the target
position, see `reward`; orientation does not count. What differs by mode: `envs/manipobj/modes.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from envs.tabletop.table import CUBE_HEIGHT, SUCCESS_DISTANCE, TABLE_Z

if TYPE_CHECKING:
    from envs.tabletop.table import Array

MAX_CUBES = 6
CUBE_DENSITY = 8000.0  # kg/m^3, OGBench has 1240
CUBE_BOX = np.array([[0.30, -0.30], [0.55, 0.30]])  # xy of starts and targets
MIN_SEPARATION = 2 * CUBE_HEIGHT * np.sqrt(2) / 2  # of two centres in xy, exclusive

PICK_PLACE = "pickplace_cube"
PUSH = "push_cube"

REWARD_MODES = ("sparse", "step", "dense")


def separated_xy(rng: np.random.Generator, others: np.ndarray, tries: int = 10_000) -> np.ndarray:
    """Draw xy (2,) in `CUBE_BOX`, farther than `MIN_SEPARATION` from all `others` (K, 2)."""
    for _ in range(tries):
        xy = rng.uniform(*CUBE_BOX)
        if len(others) == 0 or np.linalg.norm(others - xy, axis=1).min() > MIN_SEPARATION:
            return xy
    raise RuntimeError(f"found no free place among {len(others)} cubes in {tries} tries")


def free_place(rng: np.random.Generator, positions: np.ndarray) -> np.ndarray:
    """Draw a place (3,) on the table, separated in xy from all cubes at `positions` (N, 3)."""
    return np.array([*separated_xy(rng, positions[:, :2]), TABLE_Z])


def scattered(rng: np.random.Generator, num_cubes: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw separated cubes on the table: positions (N, 3) and yaws (N,) in [0, 2 pi)."""
    positions = np.full((num_cubes, 3), TABLE_Z)
    yaws = np.empty(num_cubes)
    for i in range(num_cubes):
        positions[i, :2] = separated_xy(rng, positions[:i, :2])
        yaws[i] = rng.uniform(0, 2 * np.pi)
    return positions, yaws


def stacked(xy: np.ndarray, cubes_below: np.ndarray) -> np.ndarray:
    """Return positions (N, 3) above xy (N, 2), each on top of `cubes_below` (N,) cubes."""
    return np.column_stack((xy, TABLE_Z + CUBE_HEIGHT * cubes_below))


def reward(
    distance: Array, mode: str, scale: float, success_distance: float = SUCCESS_DISTANCE
) -> Array:
    """Return the reward (...) for cubes at `distance` (..., N) metres from their targets.

    Placed is within `success_distance`, inclusive. sparse: 0 if all cubes are placed, else -1;
    step: minus the fraction not placed; dense: minus the mean distance times `scale`.
    """
    if mode == "dense":
        return -scale * distance.mean(-1)
    placed = distance <= success_distance
    if mode == "sparse":
        return placed.all(-1) * 1.0 - 1.0
    return (placed * 1.0).mean(-1) - 1.0
