"""OGBench's tasks on the robot's table by the names of their datasets: no simulator, no imports.

A name is ENVIRONMENT-DATA-v0; DATA says how the data were recorded, not what the task is.
"""

from dataclasses import dataclass

DATA = ("play", "noisy")
VISUAL = "visual-"


@dataclass(frozen=True)
class Table:
    """Things on a table: `slides` are drawer and window, `steps` the limit of an episode."""

    steps: int
    cubes: int = 0
    buttons: int = 0
    slides: int = 0
    images: bool = True  # whether it exists with images as observations, too


TABLES = {
    "cube-single": Table(200, cubes=1),
    "cube-double": Table(500, cubes=2),
    "cube-triple": Table(1000, cubes=3),
    "cube-quadruple": Table(1000, cubes=4),
    "cube-octuple": Table(1500, cubes=8, images=False),
    "scene": Table(750, cubes=1, buttons=2, slides=2),
    "puzzle-3x3": Table(500, buttons=9),
    "puzzle-4x4": Table(500, buttons=16),
    "puzzle-4x5": Table(1000, buttons=20),
    "puzzle-4x6": Table(1000, buttons=24),
}
ALLOWED = (
    f"allowed: ENV-DATA-v0 and {VISUAL}ENV-DATA-v0, ENV one of {', '.join(TABLES)}, "
    f"DATA {' or '.join(DATA)}"
)


@dataclass(frozen=True)
class Task:
    """An environment by OGBench's name of it, with states or images as observations."""

    environment: str
    table: Table
    visual: bool


def _tasks(name: str, table: Table, visual: bool) -> dict[str, Task]:
    prefix = f"{VISUAL if visual else ''}{name}"
    return {f"{prefix}-{data}-v0": Task(f"{prefix}-v0", table, visual) for data in DATA}


TASKS = {
    task: about
    for name, table in TABLES.items()
    for visual in ((False, True) if table.images else (False,))
    for task, about in _tasks(name, table, visual).items()
}
