"""Processes that make one episode after another: a parent deals them out, workers record them.

Every worker has its own pipe and asks for one episode after another. The pipe is also how either
side notices that the other one ended, however it ended.
"""

import contextlib
import multiprocessing
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from tqdm import tqdm

from common.foundation.errors import UserError
from common.foundation.processes import Patience, signals_blocked, single_threaded

REPORT_SECONDS = 0.2  # how often a worker reports its steps, and notices that the parent is gone
STOP_SECONDS = 10.0  # time a worker has to notice it

Job = tuple[str, int]  # split, episode


class Tool(Protocol):
    """What a worker works with, such as an environment."""

    def close(self) -> None:
        """Let go of what it holds."""


class Recipe(Protocol):
    """What a worker does; pickled to it."""

    def make(self) -> Tool:
        """Build the worker's tool, once."""

    def record(self, tool: Any, job: Job) -> Iterator[int]:
        """Record one episode; yields the number of rows so far, now and then.

        A worker is given its episodes in the order of the jobs.
        """


class Stopped(Exception):
    """SIGINT or SIGTERM arrived; `number` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def telling(kept: Callable[[], str]) -> Iterator[None]:
    """End the process if `run_jobs` was stopped; tell, also of errors, what is `kept`."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}; {kept()}") from error
    except Stopped as stop:
        print(f"stopped by {stop}: {kept()}")
        raise SystemExit(128 + stop.number) from None


def run_jobs(
    recipes: Sequence[Recipe],
    jobs: Iterable[Job],
    on_steps: Callable[[int], object],
    patience: Patience = Patience(),  # noqa: B008  a frozen constant
) -> None:
    """Record all `jobs` with a worker process for each recipe; `on_steps` hears of the rows done.

    An episode whose worker fails, dies or hangs is tried again in a new process as often as
    `patience` allows. Call from the main thread. Raises Stopped on SIGINT or SIGTERM, and
    UserError, with the episode and the reason, if it failed too often, or for a reason that is the
    user's to mend. All workers have ended when it returns or raises.
    """
    with _stop_signals() as received:
        try:
            with _started(recipes) as workers:
                _deal(workers, iter(jobs), on_steps, received, patience)
        except UserError:
            if not received:  # a signal to the whole process group also ends the workers
                raise
    if received:
        raise Stopped(received[0])


def _deal(
    workers: list["_Worker"],
    jobs: Iterator[Job],
    on_steps: Callable[[int], object],
    received: list[int],
    patience: Patience,
) -> None:
    """Answer the workers until all jobs are done or a signal is received."""
    busy = {worker.connection: worker for worker in workers}
    failures: Counter[Job] = Counter()
    while busy and not received:
        ready = wait(list(busy), timeout=REPORT_SECONDS)
        for connection, worker in list(busy.items()):
            try:
                if connection in ready:
                    if not _answer(worker, jobs, on_steps):
                        del busy[connection]
                elif time.monotonic() - worker.heard > patience.timeout:
                    raise _Failed(f"has been silent for {patience.timeout:g} s")
            except _Failed as failure:
                if worker.job is None or failures[worker.job] >= patience.retries:
                    raise UserError(f"{worker} {failure}") from failure
                failures[worker.job] += 1
                tqdm.write(
                    f"warning: {worker} {failure}; it is tried again, "
                    f"{failures[worker.job]} of {patience.retries} times"
                )
                on_steps(-worker.rows)
                del busy[connection]
                successor = _replace(workers, worker)
                busy[successor.connection] = successor


def _answer(worker: "_Worker", jobs: Iterator[Job], on_steps: Callable[[int], object]) -> bool:
    """Take what a worker says; returns whether it still has something to do."""
    kind, value = worker.receive()
    if kind == "refused":
        raise UserError(f"{worker} failed: {value}")
    if kind == "failed":
        raise _Failed(f"failed: {value}")
    if kind == "steps":
        worker.rows += value
        on_steps(value)
        return True
    job, worker.first = worker.first or next(jobs, None), None
    worker.give(job)
    return job is not None


def _replace(workers: list["_Worker"], worker: "_Worker") -> "_Worker":
    """A new worker in the place of one that failed; it begins with the same episode."""
    worker.connection.close()
    worker.kill()
    with single_threaded(), signals_blocked():
        successor = _Worker(worker.recipe, worker.job)
    workers[workers.index(worker)] = successor
    return successor


class _Failed(Exception):
    """A worker failed in a way that another try might mend."""


class _Worker:
    """The parent's view of a worker: process, pipe, and the episode it was given.

    Attributes:
        first: the episode to begin with, if it is settled. rows: reported of the current episode.
        heard: when it last said something.
    """

    def __init__(self, recipe: Recipe, first: Job | None = None) -> None:
        self.recipe, self.first, self.rows, self.heard = recipe, first, 0, time.monotonic()
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, recipe), daemon=True)
        self.job: Job | None = first
        self.process.start()
        theirs.close()  # so that the pipe ends when the worker does

    def receive(self) -> tuple[str, Any]:
        self.heard = time.monotonic()
        try:
            return self.connection.recv()
        except (EOFError, OSError) as error:
            self.process.join(STOP_SECONDS)
            code = self.process.exitcode
            hint = " (killed: often for lack of memory)" if code == -signal.SIGKILL else ""
            raise _Failed(f"died with exit code {code}{hint}") from error

    def give(self, job: Job | None) -> None:
        self.job, self.rows = job, 0
        with contextlib.suppress(OSError):  # the next receive notices a dead worker
            self.connection.send(job)

    def join(self) -> None:
        self.process.join(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join()

    def __str__(self) -> str:
        if self.job is None:
            return "a worker that had no episode yet"
        return f"the worker of {self.job[0]} episode {self.job[1]}"


@contextlib.contextmanager
def _started(recipes: Sequence[Recipe]) -> Iterator[list[_Worker]]:
    """Worker processes; on leaving, their pipes close, which ends them."""
    workers: list[_Worker] = []
    try:
        with single_threaded(), signals_blocked():
            for recipe in recipes:
                workers.append(_Worker(recipe))
        yield workers
    finally:
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            worker.join()


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Gather SIGINT and SIGTERM in a list instead of dying of them."""
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(n, lambda number, _: received.append(number)) for n in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)


class _ParentGone(Exception):
    """The pipe is closed: the parent wants to stop, or died."""


def _work(connection: Connection, recipe: Recipe) -> None:
    """A worker: ask for episodes and record them until told None or the parent is gone."""
    try:
        tool = recipe.make()
        while job := _ask(connection):
            _record(connection, recipe, tool, job)
        tool.close()
    except _ParentGone:
        return
    except Exception as error:  # whatever it is, the parent reports it with the episode
        message = "refused", str(error)
        if not isinstance(error, UserError):
            traceback.print_exc()
            message = "failed", f"{type(error).__name__}: {error}"
        with contextlib.suppress(_ParentGone):
            _send(connection, message)


def _record(connection: Connection, recipe: Recipe, tool: Tool, job: Job) -> None:
    rows, reported, due = 0, 0, time.monotonic()
    with contextlib.closing(recipe.record(tool, job)) as steps:  # closes the file at once
        for rows in steps:
            if time.monotonic() >= due:
                _send(connection, ("steps", rows - reported))
                reported, due = rows, time.monotonic() + REPORT_SECONDS
    _send(connection, ("steps", rows - reported))


def _ask(connection: Connection) -> Job | None:
    _send(connection, ("ready", None))
    try:
        return connection.recv()
    except (EOFError, OSError) as error:
        raise _ParentGone from error


def _send(connection: Connection, message: tuple[str, Any]) -> None:
    try:
        connection.send(message)
    except OSError as error:
        raise _ParentGone from error
