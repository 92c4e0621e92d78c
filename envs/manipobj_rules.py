"""What all cube tasks share: places, colours, distances, rewards. Plain arrays, no simulator.

Positions are in metres in the world frame, angles in radians. "Placed" means near the target
position, see `reward`; orientation does not count. What differs by mode: `envs/manipobj_modes.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from common.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    Array = TypeVar("Array", np.ndarray, Tensor)

MAX_CUBES = 6
MAX_IDENTITIES = 9  # the agent and up to eight objects
CUBE_DENSITY = 8000.0  # kg/m^3, OGBench has 1240
CUBE_HEIGHT = 0.04
TABLE_Z = 0.02  # centre of a cube that lies on the table
CUBE_BOX = np.array([[0.30, -0.30], [0.55, 0.30]])  # xy of starts and targets
MIN_SEPARATION = 2 * CUBE_HEIGHT * np.sqrt(2) / 2  # of two centres in xy, exclusive
SUCCESS_DISTANCE = 0.04
MOVED_DISTANCE = 1e-4  # in one step, from which a cube counts as moved
STACKED_DISTANCE = 0.02  # in xy, below which the higher of two cubes lies on the other
AWAY = (0.0, 0.0, -0.3)  # where unused ghosts are hidden

PALETTE = np.array(
    [
        [0.96, 0.26, 0.33, 1.0],  # red
        [0.06, 0.74, 0.21, 1.0],  # green
        [0.35, 0.55, 0.91, 1.0],  # blue
        [1.00, 0.69, 0.21, 1.0],  # orange
        [0.61, 0.28, 0.82, 1.0],  # purple
        [0.00, 0.85, 0.85, 1.0],  # cyan
    ]
)

# Scales of the observation vectors, as in OGBench.
CENTER = np.array([0.425, 0.0, 0.0])
XYZ_SCALE = 10.0
GRIPPER_SCALE = 3.0
AGENT_DIM = 6  # effector xyz, cos yaw, sin yaw, gripper
CUBE_DIM = 5  # xyz, cos yaw, sin yaw

PICK_PLACE = "pickplace_cube"
PUSH = "push_cube"
P_PUSH = 0.7

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


def top_cubes(positions: np.ndarray) -> list[int]:
    """Return the cubes of positions (N, 3) that carry no other cube."""
    offsets = positions[:, None] - positions[None]  # [j, i]: j seen from i
    near = np.linalg.norm(offsets[..., :2], axis=-1) < STACKED_DISTANCE
    covered = (near & (offsets[..., 2] > 0)).any(axis=0)
    return np.flatnonzero(~covered).tolist()


def check_reward_mode(reward_mode: str) -> None:
    """Raise `UserError` if there is no such reward."""
    if reward_mode not in REWARD_MODES:
        raise UserError(
            f"reward_mode={reward_mode} is not known; allowed: {', '.join(REWARD_MODES)}"
        )


def distances(positions: Array, targets: Array) -> Array:
    """Return the distances (...) in metres between positions (..., 3) and targets (..., 3)."""
    return ((positions - targets) ** 2).sum(-1) ** 0.5


def reward(
    distance: Array, mode: str, scale: float, success_distance: float = SUCCESS_DISTANCE
) -> Array:
    """Return the reward (...) for cubes at `distance` (..., N) metres from their targets.

    A cube within `success_distance`, inclusive, is placed.

    sparse: 0 if all cubes are placed, else -1; step: minus the fraction of cubes not placed;
    dense: minus the mean distance times `scale`.
    """
    if mode == "dense":
        return -scale * distance.mean(-1)
    placed = distance <= success_distance
    if mode == "sparse":
        return placed.all(-1) * 1.0 - 1.0
    return (placed * 1.0).mean(-1) - 1.0
