"""Figures of recorded episodes of arm and cubes."""

from collections.abc import Mapping

import numpy as np

from envs.tabletop import table

WORKSPACE = np.array([[0.25, -0.35], [0.60, 0.35]])  # xy that the effector can reach, in metres
CLEARLY_MOVED = 1e-3  # metres in one step
STACKED_TOLERANCE = 0.01  # metres by which the height above the lower cube may be off


def statistics(
    columns: Mapping[str, np.ndarray], lengths: np.ndarray, num_cubes: int
) -> dict[str, float]:
    """Return figures on episodes of `lengths` (E,) rows, from `qpos` and `state_observations`.

    A cube lies on another if their centres are closer than `table.STACKED_DISTANCE` in xy and a
    cube's height apart in z. Motion is that between rows of one episode.
    """
    figures = {}
    if "qpos" in columns:
        cubes = table.cube_positions(columns["qpos"], num_cubes).astype(np.float64)
        pair, triple = _stacks(cubes)
        figures |= of_cubes(cubes, lengths)
        figures |= {"stack of 2": float(pair.mean()), "stack of 3": float(triple.mean())}
    return figures | of_robot(columns)


def of_robot(columns: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the figures on the arm, from `state_observations` if that is stored."""
    if "state_observations" not in columns:
        return {}
    robot = columns["state_observations"][:, : table.AGENT_DIM].mean(axis=0, dtype=np.float64)
    return {
        "mean gripper opening (0 open, 1 closed)": float(robot[5] / table.GRIPPER_SCALE),
        "mean effector z (m)": float(robot[2] / table.XYZ_SCALE),
    }


def of_cubes(cubes: np.ndarray, lengths: np.ndarray) -> dict[str, float]:
    """Return the figures on positions (R, N, 3) of episodes of `lengths` (E,) rows."""
    outside = (cubes[..., :2] < WORKSPACE[0]) | (cubes[..., :2] > WORKSPACE[1])
    return _motion(cubes, lengths) | {
        "mean highest cube z (m)": float(cubes[..., 2].max(axis=1).mean()),
        "a cube outside the workspace": float(outside.any(axis=(1, 2)).mean()),
    }


def _motion(cubes: np.ndarray, lengths: np.ndarray) -> dict[str, float]:
    """Return the shares of steps in which any cube moves, from positions (R, N, 3)."""
    within = np.ones(len(cubes) - 1, bool)
    within[np.cumsum(lengths)[:-1] - 1] = False  # not from one episode to the next
    moved = table.distances(cubes[1:], cubes[:-1]).max(axis=1)[within]
    return {
        "interaction rate": float((moved >= table.MOVED_DISTANCE).mean()),
        "steps with a cube moving > 1 mm": float((moved > CLEARLY_MOVED).mean()),
    }


def _stacks(cubes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return in which rows (R,) there is a stack of two, and one of three or more."""
    offset = cubes[:, :, None] - cubes[:, None]  # [:, j, i]: cube j seen from cube i
    near = np.linalg.norm(offset[..., :2], axis=-1) < table.STACKED_DISTANCE
    on = near & (np.abs(offset[..., 2] - table.CUBE_HEIGHT) < STACKED_TOLERANCE)
    middle = on.any(axis=2) & on.any(axis=1)  # lies on a cube and carries one
    return on.any(axis=(1, 2)), middle.any(axis=1)
