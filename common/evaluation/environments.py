"""Environments of running episodes, stepped together by the workers of a pool.

Each worker hosts the slots `worker, worker + workers, ...` and gets one message per round with the
orders of all its slots. An episode's result depends only on its seed and actions, so it does not
matter which slot or worker runs it. Workers never import torch, and of each worker only the first
slot is ever asked to film: several renderers in one process are known to hang.
"""

import traceback
from collections import defaultdict
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.foundation.errors import UserError
from common.foundation.pool import Patience, Pool
from envs.base import World
from envs.rendering import side_by_side


@dataclass(frozen=True)
class Start:
    """Order: begin `episode` with the environment seeded by `seed`; `film` it or not.

    `task` is the evaluation task, in a world that has such.
    """

    episode: int
    seed: int
    film: bool = False
    task: int | None = None

    def __str__(self) -> str:
        return f"episode {self.episode} (seed {self.seed})"


@dataclass(frozen=True)
class Step:
    """Order: one environment step.

    Attributes:
        action: (A,) float32.
        film: whether to draw the state before the step.
        subgoal: (S,) state that drawn frames show as ghosts; `None` draws none.
    """

    action: np.ndarray
    film: bool = False
    subgoal: np.ndarray | None = None


@dataclass(frozen=True)
class View:
    """A drawn frame (H, W, 3) uint8 and whether the episode's goal was reached in it."""

    frame: np.ndarray
    success: bool


@dataclass(frozen=True)
class Reply:
    """Outcome of an order.

    Attributes:
        observation: raw, (S,) float32 state or uint8 image, after the order.
        state: (S,) float32, if the observation is an image; else None, it is the state.
        goal, goal_state: the same of the goal, after a `Start` only and in a world that has such.
        goal_frame: picture of the goal, after a filmed `Start` only.
        reward, terminated, truncated: of a `Step`.
        metrics: figures of the episode if it ended with this step, else `None`.
        views: frames of a filmed episode; its last step adds its final state.
    """

    observation: np.ndarray
    state: np.ndarray | None = None
    goal: np.ndarray | None = None
    goal_state: np.ndarray | None = None
    goal_frame: np.ndarray | None = None
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    metrics: dict[str, float] | None = None
    views: tuple[View, ...] = ()


@dataclass(frozen=True)
class Lost:
    """In the place of a reply: the slot's episode failed and may be started again in it."""

    reason: str


Order = Start | Step


class _Slot:
    """One environment of a worker and the history of its running episode."""

    def __init__(self, world: World, pixels: bool) -> None:
        self.world, self.pixels = world, pixels
        self.env = world.make(pixels=pixels)

    def carry_out(self, order: Order) -> Reply:
        return self._start(order) if isinstance(order, Start) else self._step(order)

    def _start(self, order: Start) -> Reply:
        self.film, self.success = order.film, False
        self.history: list[dict[str, Any]] = []
        self.rewards: list[float] = []
        options = {"render_goal": order.film}
        if order.task is not None:
            options["task_id"] = order.task
        obs, info = self.env.reset(seed=order.seed, options=options)
        goal, picture = info.get("goal" if self.pixels else "state_goal"), None
        if order.film and goal is not None:
            picture = side_by_side(info["goal_rendered"])
        return Reply(
            self._raw(obs, info),
            self._state(info, "state_obs"),
            goal=None if goal is None else self._copied(goal),
            goal_state=self._state(info, "state_goal"),
            goal_frame=picture,
        )

    def _step(self, order: Step) -> Reply:
        views = [self._view(order.subgoal)] if order.film else []
        obs, reward, terminated, truncated, info = self.env.step(order.action)
        self.history.append(info)
        self.rewards.append(float(reward))
        self.success = bool(info.get("success"))
        metrics = None
        if terminated or truncated:
            metrics = self.world.summarise(self.history, self.rewards)
            if self.film:
                views.append(self._view(order.subgoal))
        return Reply(
            self._raw(obs, info),
            self._state(info, "state_obs"),
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated),
            metrics=metrics,
            views=tuple(views),
        )

    def _raw(self, obs: np.ndarray, info: Mapping[str, Any]) -> np.ndarray:
        return self._copied(obs if self.pixels else info["state_obs"])

    def _state(self, info: Mapping[str, Any], name: str) -> np.ndarray | None:
        """The state of that name, if observations are images; what is no goal has none."""
        state = info.get(name) if self.pixels else None
        return None if state is None else np.array(state, np.float32)

    def _copied(self, raw: np.ndarray) -> np.ndarray:
        """An image as it is, a state as float32; not the environment's own, which may change."""
        return np.array(raw, None if self.pixels else np.float32)

    def _view(self, subgoal: np.ndarray | None) -> View:
        env = self.env.unwrapped
        frame = env.frame() if subgoal is None else env.subgoal_frame(subgoal)
        return View(np.array(frame), self.success)


class _Slots(dict[int, _Slot]):
    """Slots of a worker by number."""

    def close(self) -> None:
        for slot in self.values():
            slot.env.close()


@dataclass(frozen=True)
class _Hosting:
    """Work of a worker (see `common.foundation.pool.Task`): to step its slots."""

    world: World
    pixels: bool

    def make(self) -> _Slots:
        return _Slots()

    def run(
        self, slots: _Slots, orders: Mapping[int, Order]
    ) -> Generator[int, None, dict[int, Reply | UserError | str]]:
        """Returns the replies; in their place, what the user has to mend, or how it failed."""
        yield from ()
        return {slot: self._carry_out(slots, slot, order) for slot, order in orders.items()}

    def _carry_out(self, slots: _Slots, slot: int, order: Order) -> Reply | UserError | str:
        try:
            if slot not in slots:
                slots[slot] = _Slot(self.world, self.pixels)
            return slots[slot].carry_out(order)
        except UserError as error:
            return error
        except Exception as error:  # the master tries the episode again
            slots.pop(slot, None)  # the next one gets a new environment
            traceback.print_exc()
            return f"{type(error).__name__}: {error}"


class EnvPool(Pool):
    """`num_envs` environment slots, hosted by `workers`. Use as a context manager.

    Args:
        world: makes the environments; it is pickled to the workers. One that says `in_process` is
            hosted by this process.
        pixels: whether observations are images.
        patience: limits for episodes whose worker fails, hangs or dies.
    """

    def __init__(
        self,
        world: World,
        num_envs: int,
        workers: int,
        pixels: bool = False,
        patience: Patience = Patience(),  # noqa: B008  a frozen constant
    ) -> None:
        if num_envs < 1 or workers < 1:
            raise ValueError(f"num_envs={num_envs} and workers={workers} must be at least 1")
        self.num_envs = num_envs
        self.hosts = 1 if world.in_process else min(workers, num_envs)
        self._running: dict[int, Start] = {}  # slot -> its episode
        super().__init__([_Hosting(world, pixels)] * self.hosts, patience, world.in_process)

    @property
    def camera_slots(self) -> range:
        """The slots that may film: one of each worker."""
        return range(self.hosts)

    def exchange(self, orders: Mapping[int, Order]) -> dict[int, Reply | Lost]:
        """Send each running slot its order and return the replies, in ascending order of slots.

        An episode is `Lost` if its environment raised an error, or its worker died or hangs and was
        replaced; a slot that did not run before needs a `Start`.

        Raises:
            UserError: the reason of an environment is the user's to mend.
            JobFailed: an episode was lost more often than it is to be tried again. The message
                names episode and seed.
        """
        by_worker: dict[int, dict[int, Order]] = defaultdict(dict)
        for slot, order in orders.items():
            if isinstance(order, Start):
                if order.film and slot not in self.camera_slots:
                    raise ValueError(f"slot {slot} cannot film")
                self._running[slot] = order
            by_worker[slot % self.hosts][slot] = order
        for worker, message in by_worker.items():
            self.give(worker, message, [str(self._running[slot]) for slot in message])
        replies: dict[int, Reply | Lost] = {}
        while self.busy:
            for worker, report in self.take():
                if report.lost:
                    replies |= dict.fromkeys(by_worker[worker], Lost(report.lost))
                elif report.done:
                    replies |= {slot: self._outcome(slot, r) for slot, r in report.reply.items()}
        return dict(sorted(replies.items()))

    def _outcome(self, slot: int, reply: Reply | UserError | str) -> Reply | Lost:
        if isinstance(reply, UserError):
            raise reply
        if isinstance(reply, Reply):
            return reply
        episode = str(self._running[slot])
        return Lost(self.count_failure([episode], f"{episode} failed: {reply}"))
