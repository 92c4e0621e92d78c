"""Geometry of the table and its cubes, colours and columns, which all arm worlds share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    Array = TypeVar("Array", np.ndarray, Tensor)

MAX_IDENTITIES = 9  # the agent and up to eight objects
CUBE_HEIGHT = 0.04
TABLE_Z = 0.02  # centre of a cube that lies on the table
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

# Columns of qpos: six of the arm and eight of the gripper; a cube's are xyz and quaternion.
ROBOT_JOINTS, CUBE_JOINTS = 14, 7


def qpos_layout(things: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    """Return the columns [first, end) of qpos by name: arm, gripper, `things` of given sizes."""
    layout, start = {"arm": [0, 6], "gripper": [6, ROBOT_JOINTS]}, ROBOT_JOINTS
    for name, size in things:
        layout[name] = [start, start + size]
        start += size
    return layout


def cube_columns(num_cubes: int) -> list[tuple[str, int]]:
    """Return names and sizes of the columns of qpos that are the cubes'."""
    parts = (("xyz", 3), ("quaternion_wxyz", 4))
    return [(f"cube_{i}_{part}", size) for i in range(num_cubes) for part, size in parts]


def entity_names(cubes: int, buttons: int = 0, slides: int = 0) -> tuple[str, ...]:
    """Return the names of the arm and of all objects, in the order of entities."""
    objects = (*(f"cube_{i}" for i in range(cubes)), *(f"button_{i}" for i in range(buttons)))
    return ("agent", *objects, *("drawer", "window")[:slides])


def cube_positions(qpos: Array, num_cubes: int) -> Array:
    """Return xyz (..., N, 3) in metres from qpos (..., Q), in which the cubes come first."""
    poses = qpos[..., ROBOT_JOINTS : ROBOT_JOINTS + CUBE_JOINTS * num_cubes]
    return poses.reshape(*qpos.shape[:-1], num_cubes, CUBE_JOINTS)[..., :3]


def top_cubes(positions: np.ndarray) -> list[int]:
    """Return the cubes of positions (N, 3) that carry no other cube."""
    offsets = positions[:, None] - positions[None]  # [j, i]: j seen from i
    near = np.linalg.norm(offsets[..., :2], axis=-1) < STACKED_DISTANCE
    covered = (near & (offsets[..., 2] > 0)).any(axis=0)
    return np.flatnonzero(~covered).tolist()


def on_another(
    rng: np.random.Generator, positions: np.ndarray, cube: int, tops: list[int], p_stack: float
) -> np.ndarray | None:
    """Draw a place (3,) on top of one of the cubes `tops` but `cube`; None if none is wanted."""
    if len(tops) < 2 or rng.uniform() >= p_stack:
        return None
    base = int(rng.choice([top for top in tops if top != cube]))
    return positions[base] + (0.0, 0.0, CUBE_HEIGHT)


def distances(positions: Array, targets: Array) -> Array:
    """Return the distances (...) in metres between positions (..., 3) and targets (..., 3)."""
    return ((positions - targets) ** 2).sum(-1) ** 0.5
