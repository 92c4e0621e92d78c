"""Places, tasks, success, reward and targets of the scene. Arrays, no simulator.

Positions are in metres in the world frame; cubes behave as in `envs.manipobj.rules`. The drawer's
slide is 0 closed and -0.16 open, the window's 0 closed and 0.2 open. A button's state is 0 (locked,
red) or 1; button 0 locks the drawer, button 1 the window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from common.foundation.errors import UserError
from envs.tabletop import table

MODES = ("task", "data_collection")
REWARD_MODES = ("sparse", "step")
MAX_CUBES = 2
BUTTONS = 2

ARM_BOX = np.array([[0.25, -0.2, 0.20], [0.40, 0.2, 0.35]])  # OGBench reaches x = 0.60
CUBE_BOX = np.array([[0.30, -0.07], [0.45, 0.18]])  # xy of starts and targets
WORKSPACE = np.array([[0.25, -0.35, 0.02], [0.60, 0.35, 0.35]])  # of the effector
LOST_DISTANCE = 0.2  # outside the workspace, from which a cube counts as lost
DRAWER_OPEN, WINDOW_OPEN = -0.16, 0.2
DRAWER_CENTER = np.array([0.33, -0.24, 0.066])  # of a cube in the open drawer
PRESSED = -0.02  # a button's joint that goes below it toggles the button
LOCKED_DAMPING, FREE_DAMPING = 1e6, 2.0  # of the slides
# Where the handles are when closed, to a millimetre, and the tops of the buttons.
DRAWER_HANDLE = np.array([0.33, -0.24, 0.08])
WINDOW_HANDLE = np.array([0.286, 0.225, 0.237])
BUTTON_TOPS = np.array([[0.58, -0.05, 0.125], [0.58, 0.05, 0.121]])

# Colours, RGBA.
CUBE_COLORS = table.PALETTE[[0, 2]]  # red, blue
PLACED_COLORS = np.array([[0.99, 0.85, 0.86, 1.0], [0.86, 0.90, 0.98, 1.0]])  # under visualize_info
LAMP_COLORS = np.array([table.PALETTE[0], [0.9, 0.9, 0.9, 1.0]])  # of buttons and handles, by state
HANDLE_GHOST = table.PALETTE[1]  # of a subgoal's drawer and window

# Scales of the observation vectors, as in OGBench.
DRAWER_SCALE, WINDOW_SCALE, BUTTON_SCALE = 18.0, 15.0, 120.0

P_IN_DRAWER = 0.3
P_LOCKED = 0.25  # weight of a locked drawer or window among the next targets
JITTER = 0.01  # largest displacement of a task's start


class Objects(NamedTuple):
    """The movable things, or which of them are in place; any leading axes."""

    cubes: Any  # positions (..., N, 3); in place (..., N)
    buttons: Any  # states (..., 2)
    drawer: Any  # slide (...), as the window's
    window: Any


class Task(NamedTuple):
    """An evaluation task; two rows of cubes, of which a world with one cube takes the first."""

    start: Objects
    goal: Objects


def _objects(cubes: Any, buttons: tuple[int, int], drawer: float, window: float) -> Objects:
    return Objects(np.array(cubes), np.array(buttons), drawer, window)


_NEAR, _FAR, _SIDE = (0.35, 0.05, 0.02), (0.35, -0.05, 0.02), (0.35, 0.15, 0.02)
# Goals leave the drawer open, so that the cube in it can be seen (OGBench closes it).
_IN_DRAWER = (0.33, -0.256, 0.065986)

TASKS = {
    1: Task(  # open drawer and window
        _objects((_NEAR, _FAR), (1, 1), 0.0, 0.0),
        _objects((_NEAR, _FAR), (1, 1), DRAWER_OPEN, WINDOW_OPEN),
    ),
    2: Task(  # unlock, close and lock both
        _objects((_FAR, _NEAR), (0, 0), DRAWER_OPEN, WINDOW_OPEN),
        _objects((_FAR, _NEAR), (0, 0), 0.0, 0.0),
    ),
    3: Task(  # rearrange, medium
        _objects(((0.4, 0.0, 0.02), (0.3, 0.0, 0.02)), (1, 0), 0.0, WINDOW_OPEN),
        _objects(((0.4, 0.15, 0.02), (0.3, 0.15, 0.02)), (1, 1), DRAWER_OPEN, 0.0),
    ),
    4: Task(  # put the cube into the drawer
        _objects((_NEAR, _SIDE), (0, 0), 0.0, 0.0),
        _objects((_IN_DRAWER, _NEAR), (0, 0), DRAWER_OPEN, 0.0),
    ),
    5: Task(  # rearrange, hard
        _objects((_SIDE, _NEAR), (0, 0), 0.0, 0.0),
        _objects((_IN_DRAWER, _SIDE), (0, 0), DRAWER_OPEN, WINDOW_OPEN),
    ),
}


# Success and reward.


def in_place(now: Objects, goal: Objects) -> Objects:
    """Return which things are where the goal has them; the orientation of cubes does not count."""
    return Objects(
        table.distances(now.cubes, goal.cubes) <= table.SUCCESS_DISTANCE,
        now.buttons == goal.buttons,
        abs(now.drawer - goal.drawer) <= table.SUCCESS_DISTANCE,
        abs(now.window - goal.window) <= table.SUCCESS_DISTANCE,
    )


def fraction(placed: Objects) -> Any:
    """Return the fraction (...) of things in place."""
    count = placed.cubes.sum(-1) + placed.buttons.sum(-1) + placed.drawer * 1 + placed.window * 1
    return count / (placed.cubes.shape[-1] + BUTTONS + 2)


def reward(placed: Objects, mode: str) -> Any:
    """Return the reward (...). sparse: 0 if all is in place, else -1; step: fraction - 1."""
    share = fraction(placed)
    return (share == 1) * 1.0 - 1.0 if mode == "sparse" else share - 1.0


# The scripted policies' targets.


@dataclass(frozen=True)
class Job:
    """Work of a scripted policy: `task` is "cube", "button", "drawer" or "window".

    The other fields keep what they were in earlier jobs: pose for `cube`, and which `button`.
    """

    task: str
    cube: int = 0
    position: tuple[float, ...] = table.AWAY
    yaw: float = 0.0
    button: int = 0


def in_drawer(cubes: np.ndarray, drawer: np.ndarray | float) -> np.ndarray:
    """Return which cubes (..., N) of positions (..., N, 3) are in the drawer (slide (...))."""
    handle = DRAWER_HANDLE[1] - np.asarray(drawer)[..., None]
    x, y, z = np.moveaxis(cubes, -1, 0)
    between = (handle - 0.27 <= y) & (y <= handle - 0.07)
    return (x >= 0.21) & (x <= 0.45) & between & (z >= 0.0) & (z <= 0.15)


def healthy(cubes: np.ndarray) -> bool:
    """Return whether all cubes (N, 3) can be seen: not behind the window, nor behind the drawer."""
    y, z = cubes[:, 1], cubes[:, 2]
    behind = (y <= -0.3) & ((z < 0.06) | (z > 0.08))  # inside the closed drawer z is between
    return not ((y >= 0.29) | behind).any()


def draw_job(
    rng: np.random.Generator, now: Objects, last: Job, p_stack: float, published_drawer_rule: bool
) -> Job:
    """Draw what comes after `last`: a cube outside the drawer, a button, the drawer, the window.

    Differs from the reference, which puts a cube into the drawer only while exactly two cubes are
    outside of it, so never with one cube, although two evaluation tasks ask for it. Here it takes
    an empty drawer; `published_drawer_rule` brings the published rule back.
    """
    outside = np.flatnonzero(~in_drawer(now.cubes, now.drawer))
    locked = [P_LOCKED if state == 0 else 1.0 for state in now.buttons]
    weights = np.array([1.0 if len(outside) else 0.0, 1.0, *locked])
    task = str(rng.choice(["cube", "button", "drawer", "window"], p=weights / weights.sum()))
    if task == "button":
        return replace(last, task=task, button=int(rng.choice(BUTTONS)))
    if task != "cube":
        return replace(last, task=task)
    wanted = 2 if published_drawer_rule else len(now.cubes)
    fill = now.drawer < -0.12 and len(outside) == wanted and rng.uniform() < P_IN_DRAWER
    tops = [cube for cube in table.top_cubes(now.cubes) if cube in outside]
    cube = int(rng.choice(tops))
    if fill:
        position = DRAWER_CENTER + np.array([*rng.uniform(-0.005, 0.005, 2), 0.0])
    else:
        position = table.on_another(rng, now.cubes, cube, tops, p_stack)
    if position is None:
        position = np.array([*rng.uniform(*CUBE_BOX), table.TABLE_Z])
    return Job(task, cube, tuple(position), float(rng.uniform(0, 2 * np.pi)), last.button)


def aim(target: Objects, now: Objects, job: Job) -> Objects:
    """Return `target` changed by a new job: the cube to its pose, anything else to the other end.

    Targets of cubes that are not moved are hidden.
    """
    if job.task == "cube":
        cubes = np.tile(table.AWAY, (len(now.cubes), 1))
        cubes[job.cube] = job.position
        return target._replace(cubes=cubes)
    if job.task == "button":
        buttons = target.buttons.copy()
        buttons[job.button] = 1 - now.buttons[job.button]
        return target._replace(buttons=buttons)
    if job.task == "drawer":
        return target._replace(drawer=DRAWER_OPEN if now.drawer >= DRAWER_OPEN / 2 else 0.0)
    return target._replace(window=WINDOW_OPEN if now.window <= WINDOW_OPEN / 2 else 0.0)


def reached(job: Job, placed: Objects) -> bool:
    """Return whether the thing that a job is about is in place."""
    parts = {
        "cube": placed.cubes[job.cube],
        "button": placed.buttons[job.button],
        "drawer": placed.drawer,
        "window": placed.window,
    }
    return bool(parts[job.task])


# Vectors and columns.


def qpos_layout(num_cubes: int, cubes_first: bool = True) -> dict[str, list[int]]:
    """Return the columns [first, end) of qpos by name.

    OGBench and this code have the cubes first, the published collector behind the window.
    """
    cubes = table.cube_columns(num_cubes)
    others = [("buttons", BUTTONS), ("drawer", 1), ("window", 1)]
    return table.qpos_layout(cubes + others if cubes_first else others + cubes)


def find_layout(qpos: np.ndarray, num_cubes: int) -> dict[str, list[int]]:
    """Return the layout of qpos (R, Q) of unknown origin: quaternions have length one.

    Raises `UserError` if not exactly one layout fits.
    """
    fitting = []
    for cubes_first in (True, False):
        layout = qpos_layout(num_cubes, cubes_first)
        poses = [layout[f"cube_{i}_quaternion_wxyz"] for i in range(num_cubes)]
        norms = [np.linalg.norm(qpos[:, a:b].astype(np.float64), axis=-1) for a, b in poses]
        size = max(end for _, end in layout.values())
        if qpos.shape[1] == size and np.allclose(norms, 1.0, atol=1e-3):
            fitting.append(layout)
    if len(fitting) != 1:
        raise UserError(
            f"qpos with {qpos.shape[1]} columns does not fit a scene with num_cubes={num_cubes}; "
            "give the number of cubes that the data was collected with"
        )
    return fitting[0]
