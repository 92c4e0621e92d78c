"""The tasks of the pushing tables: where things start, where they have to go. No simulator.

A new task is a class and a line in `MODES`. Poses (N, 3) are x, y and yaw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from common.foundation.errors import UserError
from common.settings.schema import setting
from envs.pushing import rules
from envs.rendering import QUALITIES

ADJACENT = 0.04 * np.array([(0, 0), (1, 0), (0, 1), (-1, 0), (0, -1), (1, 1)])
SLOTS = np.array([(0.5 - 0.02 - rules.CUBE * k) / 2 for k in (1, 6)])  # x in the corridor
SORT_SPOTS = (0.25 - 4.5 * rules.CUBE, 0.3 - 4.5 * rules.CUBE) * np.array(
    [(1, 1), (-1, -1), (1, -1)]
)
LARGEST_NUMBER = 12


class NCubes:
    """`n_cubes`: every cube has to reach a place of its own. Raises `UserError` for too many.

    Attributes:
        number: of objects, if the settings have none; likewise num_colors, if not None.
        within: errors below it count as reached, in metres or radians.
    """

    name: ClassVar[str] = "n_cubes"
    scene: ClassVar[rules.Scene] = rules.Scene()
    number: ClassVar[int] = 1
    num_colors: ClassVar[int | None] = None
    within: ClassVar[float] = 0.04

    def __init__(self, settings: PushingSettings) -> None:
        self.num_objects = settings.num_objects or self.number
        own_colors = self.num_colors or min(self.num_objects, len(rules.PALETTE))
        self.colors = settings.num_colors or own_colors
        rules.check_count(self.num_objects, self.most(), self.name)

    def most(self) -> int:
        """Return the largest number of objects."""
        return min(rules.capacity(self.scene), LARGEST_NUMBER)

    @property
    def learning_steps(self) -> int:
        """Actions of an episode of training."""
        return max(30, 50 * (self.num_objects - 1))

    @property
    def episode_steps(self) -> int:
        """Actions of an episode of evaluation."""
        return 50 * self.num_objects

    @property
    def goal_objects(self) -> int:
        """Number of objects in a state of the goal; object i has goal i modulo it."""
        return self.num_objects

    @property
    def goals_shown(self) -> int:
        """Number of objects in the picture of the goal."""
        return self.goal_objects

    def draw_colors(self, rng: np.random.Generator) -> np.ndarray:
        """Return each object's index (N,) into the palette."""
        return np.arange(self.num_objects) % self.colors

    def draw_goal(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the poses (N, 3) that are wanted."""
        return rules.scattered(rng, self.scene, self.num_objects)

    def draw_start(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the poses (N, 3) of the start."""
        return rules.scattered(rng, self.scene, self.num_objects)


class NumCubes(NCubes):
    """`num_cubes`: the same with distinct colours of six, drawn anew for each episode."""

    name = "num_cubes"
    number = 3
    num_colors = 6

    def most(self) -> int:
        return min(super().most(), self.colors)

    def draw_colors(self, rng: np.random.Generator) -> np.ndarray:
        return rng.choice(self.colors, self.num_objects, replace=False)


class AdjacentGoals(NCubes):
    """`adjacent_goals`: goals touch but for 5 mm; only the first is drawn, as in the reference."""

    name = "adjacent_goals"
    number = 3

    def most(self) -> int:
        return len(ADJACENT)

    def draw_goal(self, rng: np.random.Generator) -> np.ndarray:
        poses = np.repeat(rules.scattered(rng, self.scene, 1), self.num_objects, axis=0)
        poses[:, :2] += ADJACENT[: self.num_objects]
        return poses


class OrderedPush(NCubes):
    """`ordered_push`: two cubes into a corridor, the right one first.

    Differs from the reference, whose starts may overlap the walls by a centimetre.
    """

    name = "ordered_push"
    scene = rules.Scene(corridor=True)
    number = 2

    def most(self) -> int:
        return len(SLOTS)

    def draw_goal(self, rng: np.random.Generator) -> np.ndarray:
        poses = np.zeros((self.num_objects, 3))
        poses[:, 0] = rng.permutation(SLOTS)[: self.num_objects]
        return poses

    def draw_start(self, rng: np.random.Generator) -> np.ndarray:
        box = np.array([0.1125, 0.15])
        return rules.before_walls(rules.scattered(rng, self.scene, self.num_objects, box))


class SmallTable(NCubes):
    """`small_table`: there is little room, and cubes fall off."""

    name = "small_table"
    scene = rules.Scene(size=(0.3, 0.3), home=0.098)
    number = 3


class PushT(NCubes):
    """`push_t`: all T blocks have to turn to the yaw of one pose; places do not count.

    The picture of the goal shows one block; a state has the pose in every block's row, so that it
    looks like the states that hindsight takes for goals.
    """

    name = "push_t"
    scene = rules.Scene(blocks=True)
    num_colors = 1
    within = 0.3

    @property
    def learning_steps(self) -> int:
        return self.episode_steps

    @property
    def goals_shown(self) -> int:
        return 1

    def draw_goal(self, rng: np.random.Generator) -> np.ndarray:
        return np.repeat(rules.scattered(rng, self.scene, 1), self.num_objects, axis=0)


class SortPush(NCubes):
    """`sort_push`: every cube has to come near the spot of its colour, of which there are three.

    Goals have one cube of each colour. Differs from the reference, whose figures compare most cubes
    with nothing: all cubes count, and reached is within 0.10 m, as 12 do not fit within 0.04.
    """

    name = "sort_push"
    number = 12
    num_colors = len(SORT_SPOTS)
    within = 0.10
    learning_steps = 200
    episode_steps = 300

    def __init__(self, settings: PushingSettings) -> None:
        super().__init__(settings)
        rules.check_count(self.colors, len(SORT_SPOTS), self.name, "num_colors")

    @property
    def goal_objects(self) -> int:
        return min(self.colors, self.num_objects)

    def draw_goal(self, rng: np.random.Generator) -> np.ndarray:
        spot = (rng.integers(len(SORT_SPOTS)) + self.draw_colors(rng)) % len(SORT_SPOTS)
        return np.column_stack((SORT_SPOTS[spot], np.zeros(self.num_objects)))


MODES: dict[str, type[NCubes]] = {
    mode.name: mode
    for mode in (NCubes, AdjacentGoals, OrderedPush, SmallTable, PushT, NumCubes, SortPush)
}
COLLECTORS = ("random", "pusher")


@dataclass(frozen=True)
class PushingSettings:
    """Section `env_kwargs.pushing`."""

    mode: str = setting(choices=tuple(MODES))
    num_objects: int | None = setting(low=1, high=LARGEST_NUMBER)
    num_colors: int | None = setting(low=1, high=len(rules.PALETTE))
    collector: str = setting(choices=COLLECTORS, identity=False)
    width: int = setting(low=1)
    height: int = setting(low=1)
    render_quality: str = setting(choices=tuple(QUALITIES), identity=False)  # the data's, if images


def make_mode(settings: PushingSettings) -> NCubes:
    """Return the task of these settings; raise `UserError` where a task cannot have them."""
    if settings.collector == "pusher" and settings.mode == PushT.name:
        raise UserError(
            f"collector=pusher is not possible in mode={settings.mode}: it does not turn blocks; "
            "set env_kwargs.pushing.collector=random"
        )
    return MODES[settings.mode](settings)
