"""What the cube tasks are: places, colours, success, rewards, targets. Plain arrays, no simulator.

Positions are in metres in the world frame, angles in radians. "Placed" means within
`SUCCESS_DISTANCE` of the target position; orientation does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
P_PICK_PLACE = 0.3

REWARD_MODES = ("sparse", "step", "dense")


@dataclass(frozen=True)
class Target:
    """A scripted policy's next job: which cube, by which policy, to which pose."""

    task: str
    cube: int
    position: np.ndarray
    yaw: float


def separated_xy(rng: np.random.Generator, others: np.ndarray, tries: int = 10_000) -> np.ndarray:
    """Draw xy (2,) in `CUBE_BOX`, farther than `MIN_SEPARATION` from all `others` (K, 2)."""
    for _ in range(tries):
        xy = rng.uniform(*CUBE_BOX)
        if len(others) == 0 or np.linalg.norm(others - xy, axis=1).min() > MIN_SEPARATION:
            return xy
    raise RuntimeError(f"found no free place among {len(others)} cubes in {tries} tries")


def scattered(rng: np.random.Generator, num_cubes: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw separated cubes on the table: positions (N, 3) and yaws (N,) in [0, 2 pi)."""
    positions = np.full((num_cubes, 3), TABLE_Z)
    yaws = np.empty(num_cubes)
    for i in range(num_cubes):
        positions[i, :2] = separated_xy(rng, positions[:i, :2])
        yaws[i] = rng.uniform(0, 2 * np.pi)
    return positions, yaws


def top_cubes(positions: np.ndarray) -> list[int]:
    """Return the cubes of positions (N, 3) that carry no other cube."""
    offsets = positions[:, None] - positions[None]  # [j, i]: j seen from i
    near = np.linalg.norm(offsets[..., :2], axis=-1) < STACKED_DISTANCE
    covered = (near & (offsets[..., 2] > 0)).any(axis=0)
    return np.flatnonzero(~covered).tolist()


def pick_place_or_push(rng: np.random.Generator, positions: np.ndarray, p_stack: float) -> Target:
    """Draw the next target of mode `data_collection` given cube positions (N, 3).

    A push gets a target pose as well, which its policy ignores (as in the reference).
    """
    tops = top_cubes(positions)
    cube = int(rng.choice(tops))
    task = PICK_PLACE if rng.uniform() < P_PICK_PLACE else PUSH
    if len(tops) >= 2 and rng.uniform() < p_stack:
        base = int(rng.choice([top for top in tops if top != cube]))
        position = positions[base] + (0.0, 0.0, CUBE_HEIGHT)
    else:
        position = np.array([*separated_xy(rng, positions[:, :2]), TABLE_Z])
    return Target(task, cube, position, float(rng.uniform(0, 2 * np.pi)))


# Every mode is in exactly one of the two tables: how a task draws its goal, and how a collection
# draws the next target. A new mode is a function and a line.
Placement = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
GOALS: dict[str, Placement] = {"task": scattered}
TARGETS: dict[str, Callable[[np.random.Generator, np.ndarray, float], Target]] = {
    "data_collection": pick_place_or_push,
}
MODES = (*GOALS, *TARGETS)
# Stacks are seen from farther back, and lower, by the side camera.
STACK_MODES = ("task_stack", "task_stack_all", "data_collection_stack")


def check(mode: str, reward_mode: str, num_cubes: int) -> None:
    """Raise `UserError` if there is no such environment."""
    if mode not in MODES:
        raise UserError(f"mode={mode} is not known; allowed: {', '.join(MODES)}")
    if reward_mode not in REWARD_MODES:
        raise UserError(
            f"reward_mode={reward_mode} is not known; allowed: {', '.join(REWARD_MODES)}"
        )
    if not 1 <= num_cubes <= MAX_CUBES:
        raise UserError(
            f"num_cubes={num_cubes} is not possible; "
            f"give env_kwargs.manipobj.num_cubes=N with N from 1 to {MAX_CUBES}"
        )


def distances(positions: Array, targets: Array) -> Array:
    """Return the distances (...) in metres between positions (..., 3) and targets (..., 3)."""
    return ((positions - targets) ** 2).sum(-1) ** 0.5


def reward(distance: Array, mode: str, scale: float) -> Array:
    """Return the reward (...) for cubes at `distance` (..., N) from their targets.

    sparse: 0 if all cubes are placed, else -1; step: minus the fraction of cubes not placed;
    dense: minus the mean distance times `scale`.
    """
    if mode == "dense":
        return -scale * distance.mean(-1)
    placed = distance <= SUCCESS_DISTANCE
    if mode == "sparse":
        return placed.all(-1) * 1.0 - 1.0
    return (placed * 1.0).mean(-1) - 1.0
