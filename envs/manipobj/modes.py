"""The modes of the cube environment: what an episode is about. Plain arrays, no simulator.

A task mode (`GOALS`) says where the goal's cubes are and when they count as placed; a collection
mode (`TARGETS`) says what the scripted policies do next. A new mode is a class and a line in one of
the two tables. Letters: N cubes, K colours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from common.foundation.errors import UserError
from common.settings.schema import setting
from envs.manipobj import rules
from envs.rendering import QUALITIES
from envs.tabletop import table

STACK_CAMERA = "side_pixels_stack"  # farther back and lower than `side_pixels`
SLOT_DISTANCE = 0.02  # metres from its slot, beyond which a cube of a stack has to be moved
STACK_STEPS = 500  # environment steps after which an unfinished stack is given up
SORT_SPOTS = np.array([(0.3, -0.2), (0.3, 0.2), (0.55, -0.2), (0.55, 0.2), (0.425, 0.0)])
OUT_OF_VIEW = (2.0, 2.0)  # xy of the goal of a cube that has no spot of its own


class Mode:
    """Colours, cameras and success of an episode."""

    collection: ClassVar[str] = "data_collection"  # mode that collects data for this one
    side_camera: ClassVar[str] = "side_pixels"  # the second camera of `multiview`
    success_distance: ClassVar[float] = table.SUCCESS_DISTANCE  # metres, inclusive

    def __init__(self, settings: ManipObjSettings) -> None:
        self.settings, self.num_cubes = settings, settings.num_cubes
        self.goal_of = np.arange(self.num_cubes)  # the cube whose target each cube has to reach

    def colors(self, rng: np.random.Generator) -> np.ndarray:
        """Return each cube's index (N,) into the palette: N distinct ones, or the first N."""
        if not self.settings.random_colors:
            return np.arange(self.num_cubes)
        return rng.choice(len(table.PALETTE), self.num_cubes, replace=False)


# Task modes.


class Task(Mode):
    """`task`: every cube has to reach its own goal position, anywhere on the table."""

    def place(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw the goal: positions (N, 3) and yaws (N,) in [0, 2 pi)."""
        return rules.scattered(rng, self.num_cubes)


class StackAll(Task):
    """`task_stack_all`: one stack of all cubes, cube 0 at its bottom."""

    collection = "data_collection_stack"
    side_camera = STACK_CAMERA

    def place(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw separated stacks of successive cubes; the last one holds what is left."""
        number, height = np.divmod(np.arange(self.num_cubes), self._height())
        bases, _ = rules.scattered(rng, number[-1] + 1)
        positions = rules.stacked(bases[number, :2], height)
        return positions, rng.uniform(0, 2 * np.pi, self.num_cubes)

    def _height(self) -> int:
        return self.num_cubes


class StackPairs(StackAll):
    """`task_stack`: stacks of two, cube 1 on cube 0, cube 3 on cube 2; an odd last one alone."""

    def _height(self) -> int:
        return 2


class Sort(Task):
    """`task_sort`: every cube has to come near the spot of its colour, i mod K of cube i.

    The goal shows cube i at spot i for i < K. The others lie far out of view, in a row; in the
    reference all at one point, inside each other. Raises `UserError` for more colours than spots.
    """

    success_distance = 0.16

    def __init__(self, settings: ManipObjSettings) -> None:
        if settings.num_colors > len(SORT_SPOTS):
            raise UserError(
                f"num_colors={settings.num_colors} is too many for mode=task_sort, which has a "
                f"spot for {len(SORT_SPOTS)}; give env_kwargs.manipobj.num_colors=K with K from 1 "
                f"to {len(SORT_SPOTS)}"
            )
        super().__init__(settings)
        self.goal_of %= settings.num_colors

    def colors(self, rng: np.random.Generator) -> np.ndarray:
        """Return the first K colours in turn, whatever `random_colors` says."""
        return self.goal_of

    def place(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        num_colors = self.settings.num_colors
        others = np.arange(max(self.num_cubes - num_colors, 0))
        row = OUT_OF_VIEW + 0.1 * np.stack((0 * others, others), axis=1)
        spots = np.concatenate((SORT_SPOTS[:num_colors], row))[: self.num_cubes]
        positions = rules.stacked(spots, np.zeros(self.num_cubes))
        return positions, rng.uniform(0, 2 * np.pi, self.num_cubes)


# Collection modes.


@dataclass(frozen=True)
class Target:
    """A scripted policy's next job: which cube, by which policy, to which pose."""

    task: str
    cube: int
    positions: np.ndarray  # (N, 3) of all ghosts: the target's, others away or in a stack
    yaws: np.ndarray  # (N,) of them

    @property
    def position(self) -> np.ndarray:
        """Where the cube (3,) is wanted."""
        return self.positions[self.cube]


def single(
    task: str, cube: int, num_cubes: int, position: np.ndarray, rng: np.random.Generator
) -> Target:
    """Return a target, of random yaw, that leaves the other cubes alone: their ghosts are away."""
    positions, yaws = np.tile(table.AWAY, (num_cubes, 1)), np.zeros(num_cubes)
    positions[cube], yaws[cube] = position, rng.uniform(0, 2 * np.pi)
    return Target(task, cube, positions, yaws)


class Collection(Mode, ABC):
    """Draws one target after the other; what it remembers belongs to one episode."""

    def reset(self) -> None:
        """Forget the last episode."""

    def p_stack(self, rng: np.random.Generator) -> float:
        """Return how likely an episode builds on other cubes: what is given, or as published."""
        given = self.settings.p_stack
        return self.published_p_stack(rng) if given is None else given

    @abstractmethod
    def published_p_stack(self, rng: np.random.Generator) -> float:
        """Draw the probability that an episode of the published data has."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, positions: np.ndarray, p_stack: float) -> Target:
        """Return the next target, for a policy that has finished; cubes are at (N, 3)."""

    def follow(self, positions: np.ndarray, cube: int) -> int:
        """Return the cube to pursue after an environment step, `cube` having been it before."""
        return cube


class PickPlaceOrPush(Collection):
    """`data_collection`: single cubes are placed, on others too, or pushed."""

    def published_p_stack(self, rng: np.random.Generator) -> float:
        return 0.5 if self.num_cubes > 1 else 0.0

    def draw(self, rng: np.random.Generator, positions: np.ndarray, p_stack: float) -> Target:
        """Draw a cube that carries no other, a policy, and a free place or the top of a cube.

        A push gets a target pose as well, which its policy ignores (as in the reference).
        """
        tops = table.top_cubes(positions)
        cube = int(rng.choice(tops))
        task = rules.PICK_PLACE if rng.uniform() < 1 - self.settings.p_push else rules.PUSH
        position = table.on_another(rng, positions, cube, tops, p_stack)
        if position is None:
            position = rules.free_place(rng, positions)
        return single(task, cube, self.num_cubes, position, rng)


class BuildStacks(Collection):
    """`data_collection_stack`: all cubes are stacked in a random order, or one is placed.

    Differs from the reference: a stack ends with its episode. There 20 of 24 episodes started
    inside the previous one's, on a base that could lie under a cube of the new episode.
    """

    collection = "data_collection_stack"
    side_camera = STACK_CAMERA

    def reset(self) -> None:
        self._order = np.array([], dtype=int)  # cubes from bottom to top; empty: no stack

    def published_p_stack(self, rng: np.random.Generator) -> float:
        # of starting a stack
        ranges = {1: (0.0, 0.0), 2: (0.0, 0.25), 3: (0.9, 0.9), 4: (0.1, 0.5)}
        return rng.uniform(*ranges.get(self.num_cubes, (0.5, 0.5)))

    def draw(self, rng: np.random.Generator, positions: np.ndarray, p_stack: float) -> Target:
        """Return the stack's lowest cube that is not in its slot, of a new stack perhaps."""
        tops = table.top_cubes(positions)
        if not len(self._order) and len(tops) >= 2 and rng.uniform() < p_stack:
            self._start(rng, positions)
        if len(self._order):
            # The only place where the index moves forward: the policy has finished.
            self._index = min(self._first_displaced(positions), self.num_cubes - 1)
            return Target(rules.PICK_PLACE, self._current(), self._slots, self._yaws)
        position = rules.free_place(rng, positions)
        return single(rules.PICK_PLACE, int(rng.choice(tops)), self.num_cubes, position, rng)

    def follow(self, positions: np.ndarray, cube: int) -> int:
        """Count a step; go back to a lower cube of the stack that has left its slot.

        A stack that is complete, or has taken too long, ends. Its last cube stays the target until
        the policy has finished.
        """
        if not len(self._order):
            return cube
        self._steps += 1
        displaced = self._first_displaced(positions)
        if displaced == self.num_cubes or self._steps > STACK_STEPS:
            self._order = self._order[:0]
            return cube
        self._index = min(self._index, displaced)
        return self._current()

    def _start(self, rng: np.random.Generator, positions: np.ndarray) -> None:
        self._order, self._steps = rng.permutation(self.num_cubes), 0
        base = rules.separated_xy(rng, positions[:, :2])
        self._slots = rules.stacked(np.tile(base, (self.num_cubes, 1)), np.argsort(self._order))
        self._yaws = rng.uniform(0, 2 * np.pi, self.num_cubes)

    def _first_displaced(self, positions: np.ndarray) -> int:
        """Return the place in the order of the lowest cube out of its slot, N if there is none."""
        displaced = table.distances(positions, self._slots)[self._order] > SLOT_DISTANCE
        return int(displaced.argmax()) if displaced.any() else self.num_cubes

    def _current(self) -> int:
        return int(self._order[self._index])


GOALS: dict[str, type[Task]] = {
    "task": Task,
    "task_stack": StackPairs,
    "task_stack_all": StackAll,
    "task_sort": Sort,
}
TARGETS: dict[str, type[Collection]] = {
    "data_collection": PickPlaceOrPush,
    "data_collection_stack": BuildStacks,
}
MODES: dict[str, type[Mode]] = {**GOALS, **TARGETS}


@dataclass(frozen=True)
class ManipObjSettings:
    """Section `env_kwargs.manipobj`."""

    mode: str = setting(choices=tuple(MODES))
    reward_mode: str = setting(choices=rules.REWARD_MODES)
    num_cubes: int = setting(low=0, high=rules.MAX_CUBES)  # 0: not chosen yet
    num_colors: int = setting(low=1, high=len(table.PALETTE))
    p_push: float = setting(low=0.0, high=1.0)
    p_stack: float | None = setting(low=0.0, high=1.0)
    random_colors: bool = setting()
    reward_scale: float = setting()
    visualize_info: bool = setting()
    terminate_at_goal: bool = setting()
    width: int = setting(low=1)
    height: int = setting(low=1)
    render_quality: str = setting(choices=tuple(QUALITIES), identity=False)  # the data's, if images


def make_mode(settings: ManipObjSettings) -> Mode:
    """Return the mode of these settings; raise `UserError` where a mode cannot have them."""
    if settings.num_cubes < 1:
        raise UserError(
            f"num_cubes={settings.num_cubes} is not possible; "
            f"give env_kwargs.manipobj.num_cubes=N with N from 1 to {rules.MAX_CUBES}"
        )
    return MODES[settings.mode](settings)
