"""Environments in worker processes, driven in lockstep by one master.

Each worker hosts the slots `worker, worker + workers, ...` and gets one message per round with the
orders of all its slots. An episode's result depends only on its seed and actions, so it does not
matter which slot or worker runs it. Workers never import torch, and of each worker only the first
slot is ever asked to film: several renderers in one process are known to hang.
"""

import contextlib
import multiprocessing
import traceback
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from common.foundation.errors import UserError
from common.foundation.processes import Patience, signals_blocked, single_threaded
from envs.base import World


@dataclass(frozen=True)
class Start:
    """Order: begin `episode` with the environment seeded by `seed`; `film` it or not.

    `task` is the evaluation task, in a world that has such.
    """

    episode: int
    seed: int
    film: bool = False
    task: int | None = None


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
    """What an order led to.

    Attributes:
        observation: raw, (S,) float32 state or uint8 image, after the order.
        goal: raw goal, after a `Start` only.
        goal_frame: picture of the goal, after a filmed `Start` only.
        metrics: figures of the episode if it ended with this step, else `None`.
        views: what was filmed; the last step of a filmed episode adds its final state.
    """

    observation: np.ndarray
    goal: np.ndarray | None = None
    goal_frame: np.ndarray | None = None
    metrics: dict[str, float] | None = None
    views: tuple[View, ...] = ()


@dataclass(frozen=True)
class Lost:
    """In the place of a reply: the slot's episode failed and may be started again in it."""

    reason: str


Order = Start | Step


@dataclass(frozen=True)
class _Failure:
    """An error of a worker, in words: exceptions themselves need not survive pickling."""

    slot: int
    reason: str
    details: str
    of_user: bool


class _Slot:
    """One environment of a worker and the history of its running episode."""

    def __init__(self, world: World, pixels: bool) -> None:
        self.world, self.pixels = world, pixels
        self.env = world.make(pixels=pixels)

    def start(self, order: Start) -> Reply:
        self.film, self.success = order.film, False
        self.history: list[dict[str, Any]] = []
        self.rewards: list[float] = []
        options = {"render_goal": order.film}
        if order.task is not None:
            options["task_id"] = order.task
        obs, info = self.env.reset(seed=order.seed, options=options)
        goal = info["goal"] if self.pixels else np.asarray(info["state_goal"], np.float32)
        picture = side_by_side(info["goal_rendered"]) if order.film else None
        return Reply(self._raw(obs, info), goal=goal, goal_frame=picture)

    def step(self, order: Step) -> Reply:
        views = [self._view(order.subgoal)] if order.film else []
        obs, reward, terminated, truncated, info = self.env.step(order.action)
        self.history.append(info)
        self.rewards.append(float(reward))
        self.success = bool(info["success"])
        metrics = None
        if terminated or truncated:
            metrics = self.world.summarise(self.history, self.rewards)
            if self.film:
                views.append(self._view(order.subgoal))
        return Reply(self._raw(obs, info), metrics=metrics, views=tuple(views))

    def _raw(self, obs: np.ndarray, info: Mapping[str, Any]) -> np.ndarray:
        return obs if self.pixels else np.asarray(info["state_obs"], np.float32)

    def _view(self, subgoal: np.ndarray | None) -> View:
        env = self.env.unwrapped
        return View(env.frame() if subgoal is None else env.subgoal_frame(subgoal), self.success)


def side_by_side(frames: np.ndarray) -> np.ndarray:
    """One picture of several views: (V, H, W, 3) -> (H, V W, 3); (H, W, 3) stays."""
    return np.concatenate(list(frames), axis=1) if frames.ndim == 4 else frames


def _serve(connection: Connection, world: World, pixels: bool) -> None:
    """Carry out orders until the master closes the connection or dies."""
    slots: dict[int, _Slot] = {}
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            replies: dict[int, Reply | _Failure] = {}
            for slot, order in connection.recv().items():
                replies[slot] = _carry_out(slots, slot, order, world, pixels)
            connection.send(replies)


def _carry_out(
    slots: dict[int, _Slot], slot: int, order: Order, world: World, pixels: bool
) -> Reply | _Failure:
    try:
        if slot not in slots:
            slots[slot] = _Slot(world, pixels)
        host = slots[slot]
        return host.start(order) if isinstance(order, Start) else host.step(order)
    except Exception as error:  # reported to the master, which raises it there
        slots.pop(slot, None)  # the next episode gets a new environment
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return _Failure(slot, reason, traceback.format_exc(), isinstance(error, UserError))


class EnvPool:
    """`num_envs` environment slots in `workers` processes. Use as a context manager.

    Args:
        world: makes the environments; it is pickled to the workers.
        pixels: whether observations are images.
        patience: what is done about episodes whose worker fails, hangs or dies.
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
        self.num_envs, self.workers = num_envs, min(workers, num_envs)
        self.patience = patience
        self._arguments = world, pixels
        self._running: dict[int, Start] = {}  # slot -> its episode
        self._failures: Counter[int] = Counter()  # by episode
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._connections: list[Connection] = []
        try:
            for worker in range(self.workers):
                self._spawn(worker)
        except BaseException:
            self.close()
            raise

    def _spawn(self, worker: int) -> None:
        """Start the process of a worker, or one that takes its place."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
        self._connections[worker : worker + 1] = [ours]
        with single_threaded(), signals_blocked():
            process.start()
        self._processes[worker : worker + 1] = [process]
        theirs.close()  # so that the worker's death ends our end of the pipe

    @property
    def camera_slots(self) -> range:
        """The slots that may film: one of each worker."""
        return range(self.workers)

    @property
    def worker_pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def exchange(self, orders: Mapping[int, Order]) -> dict[int, Reply | Lost]:
        """Send each running slot its order and return the replies, in ascending order of slots.

        An episode is `Lost` if its environment raised an error, or its worker died or hangs and was
        replaced; a slot that did not run before needs a `Start`.

        Raises:
            UserError: what an environment says is the user's to mend.
            RuntimeError: an episode was lost more often than it is to be tried again. The message
                names episode and seed.
        """
        by_worker: dict[int, dict[int, Order]] = defaultdict(dict)
        for slot, order in orders.items():
            if isinstance(order, Start):
                if order.film and slot not in self.camera_slots:
                    raise ValueError(f"slot {slot} cannot film")
                self._running[slot] = order
            by_worker[slot % self.workers][slot] = order
        for worker, message in by_worker.items():
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # noticed on receiving
                self._connections[worker].send(message)
        replies: dict[int, Reply | Lost] = {}
        for worker, message in by_worker.items():
            replies |= self._receive(worker, list(message))
        return dict(sorted(replies.items()))

    def _receive(self, worker: int, slots: list[int]) -> dict[int, Reply | Lost]:
        connection, process = self._connections[worker], self._processes[worker]
        try:
            if connection.poll(self.patience.timeout):
                replies = connection.recv()
                return {slot: self._judge(slot, reply) for slot, reply in replies.items()}
            problem = f"has not answered within {self.patience.timeout:g} s"
        except (EOFError, ConnectionResetError):
            process.join()
            problem = f"ended with exit code {process.exitcode}"
        reason = f"worker {worker} {problem}; it was running {self._episodes(slots)}"
        lost = {slot: self._lose(slot, reason) for slot in slots}
        connection.close()
        process.kill()
        process.join()
        process.close()
        self._spawn(worker)
        return lost

    def _judge(self, slot: int, reply: Reply | _Failure) -> Reply | Lost:
        if isinstance(reply, Reply):
            return reply
        if reply.of_user:
            raise UserError(reply.reason)
        return self._lose(slot, f"{self._episodes([slot])} failed: {reply.reason}", reply.details)

    def _lose(self, slot: int, reason: str, details: str = "") -> Lost:
        """Count a failure of the slot's episode; raises `RuntimeError` if it was one too many."""
        episode = self._running[slot].episode
        if self._failures[episode] >= self.patience.retries:
            raise RuntimeError(f"{reason}\n{details}".rstrip())
        self._failures[episode] += 1
        return Lost(f"{reason}; try {self._failures[episode]} of {self.patience.retries} follows")

    def _episodes(self, slots: list[int]) -> str:
        running = [self._running[slot] for slot in slots]
        return ", ".join(f"episode {start.episode} (seed {start.seed})" for start in running)

    def close(self) -> None:
        """End the workers; those that are busy or hang are killed."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(timeout=1.0)  # an idle worker leaves at once
            if process.is_alive():
                process.kill()
            process.join()
            process.close()
        self._connections, self._processes = [], []

    def __enter__(self) -> "EnvPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
