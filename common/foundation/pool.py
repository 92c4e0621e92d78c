"""Workers that carry out jobs: processes, or this process itself with the same face.

Each process has a pipe of its own: jobs go in; reports of progress and a reply come out. One that
ends or is silent for too long is replaced, and its job can be given again. The pipe also tells a
process that its parent is gone, however that ended. (The executors of `concurrent.futures` and
`loky` break when a process dies, `multiprocessing.Pool` loses its job; none ends one that hangs,
or gives a job to the process that holds its environments.) Nothing here imports torch.
"""

import contextlib
import multiprocessing
import signal
import time
import traceback
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, Self

from common.foundation.errors import UserError
from common.foundation.messages import Line, lines_to, pass_on
from common.foundation.processes import signals_blocked, single_threaded, without_script

REPORT_SECONDS = 0.2  # how often a worker reports progress, and notices that the parent is gone
STOP_SECONDS = 10.0  # that workers have to notice it


@dataclass(frozen=True)
class Patience:
    """Limits for workers that die, hang or fail.

    Attributes:
        timeout: seconds after which a silent process counts as hanging; its start is included,
            with imports and models to compile.
        retries: how often a job is tried again, by a new worker, before the work stops.
    """

    timeout: float = 600.0
    retries: int = 0


class Task(Protocol):
    """Work of one worker; pickled to a process."""

    def make(self) -> Any:
        """Build the tool that the worker works with, once; it has a method `close`."""

    def run(self, tool: Any, job: Any) -> Generator[int, None, Any]:
        """Carry out one job: yields its progress so far, now and then, and returns the reply."""


@dataclass(frozen=True)
class Report:
    """Message of a worker: progress since the last one and, once the job is `done`, the reply.

    Of a job that failed and may be given again, `lost` says why, and `progress` takes back (it is
    negative) what was reported before.
    """

    progress: int
    done: bool = False
    reply: Any = None
    lost: str = ""


class JobFailed(RuntimeError):
    """A job failed more often than it is to be tried again; the message names it."""


# Of a worker: progress or a reply, what it tells people, a mistake of the user, or what else went
# wrong, in words.
Message = Report | Line | UserError | str


def _work(task: Task, jobs: Iterable[Any]) -> Iterator[Message]:
    """The messages of a worker while it carries out the jobs."""
    try:
        with contextlib.closing(task.make()) as tool:
            for job in jobs:
                with contextlib.closing(task.run(tool, job)) as steps:  # its files close at once
                    yield from _reports(steps)
    except UserError as error:
        yield UserError(f"failed: {error}")
    except Exception as error:  # whatever it is, the parent reports it with the job
        traceback.print_exc()
        yield f"failed: {type(error).__name__}: {error}"


def _reports(steps: Generator[int, None, Any]) -> Iterator[Report]:
    done, reported, due = 0, 0, time.monotonic()
    while True:
        try:
            done = next(steps)
        except StopIteration as end:
            yield Report(done - reported, done=True, reply=end.value)
            return
        if time.monotonic() >= due:
            yield Report(done - reported)
            reported, due = done, time.monotonic() + REPORT_SECONDS


def _serve(connection: Connection, task: Task) -> None:
    """Life of a worker process: until it failed, or the parent closed the pipe or is gone."""
    messages = _work(task, _received(connection))
    with contextlib.closing(messages), lines_to(connection.send):
        for message in messages:
            try:
                connection.send(message)
            except OSError:
                return


def _received(connection: Connection) -> Iterator[Any]:
    with contextlib.suppress(EOFError, OSError):
        while True:
            yield connection.recv()


class _Process:
    """A worker process and the parent's end of its pipe."""

    def __init__(self, task: Task) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, task), daemon=True)
        with single_threaded(), signals_blocked(), without_script(task):
            self.process.start()
        theirs.close()  # so that the pipe ends when the worker does

    def give(self, job: Any) -> None:
        with contextlib.suppress(OSError):  # `receive` notices a dead worker
            self.connection.send(job)

    def receive(self) -> Message:
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join(STOP_SECONDS)
            code = self.process.exitcode
            hint = " (killed: often for lack of memory)" if code == -signal.SIGKILL else ""
            return f"died with exit code {code}{hint}"

    def close(self) -> None:
        self.connection.close()

    def end(self, seconds: float = 0.0) -> None:
        """Wait so long for the process to leave by itself, then kill it."""
        try:
            self.process.join(max(seconds, 0.0))
        finally:
            self.process.kill()
            self.process.join()


class _Here:
    """This process as a worker, which cannot be replaced if it hangs or dies."""

    def __init__(self, task: Task) -> None:
        self.jobs: deque[Any] = deque()
        self.give = self.jobs.append
        self.messages = _work(task, iter(self.jobs.popleft, None))

    def receive(self) -> Message:
        return next(self.messages)

    def close(self) -> None:
        self.messages.close()

    def end(self, seconds: float = 0.0) -> None:
        pass


@dataclass
class _Given:
    """A job that a worker is busy with."""

    names: Sequence[str]
    heard: float
    progress: int = 0


class Pool:
    """Workers, each of which has at most one job at a time; a context manager that ends them.

    Args:
        tasks: one for each worker.
        in_process: carry out the jobs in this process instead, one after another.
    """

    def __init__(self, tasks: Sequence[Task], patience: Patience, in_process: bool = False) -> None:
        self.tasks, self.patience = tasks, patience
        self._kind = _Here if in_process else _Process
        self._failures: Counter[str] = Counter()
        self._given: dict[int, _Given] = {}
        self.workers: list[Any] = []
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self.workers.extend(map(self._kind, tasks))
            undo.pop_all()

    @property
    def busy(self) -> bool:
        return bool(self._given)

    def give(self, worker: int, job: Any, names: Sequence[str]) -> None:
        """Give a job to an idle worker; `names` are for messages, and to count failures by."""
        self._given[worker] = _Given(names, time.monotonic())
        self.workers[worker].give(job)

    def take(self) -> Iterator[tuple[int, Report]]:
        """Give the messages of busy workers, if need be after a short while in which none comes.

        A worker that is lost was replaced. Raises UserError for what a task says is the user's to
        mend, and `JobFailed`.
        """
        ready = self._given.keys()
        if self._kind is _Process:
            ready = wait([self.workers[worker].connection for worker in ready], REPORT_SECONDS)
            ready = [worker for worker in self._given if self.workers[worker].connection in ready]
        for worker in list(self._given):
            if worker in ready:
                yield worker, self._judge(worker, self.workers[worker].receive())
            elif time.monotonic() - self._given[worker].heard > self.patience.timeout:
                silence = f"has been silent for {self.patience.timeout:g} s"
                yield worker, self._judge(worker, silence)

    def _judge(self, worker: int, message: Message) -> Report:
        given = self._given[worker]
        given.heard = time.monotonic()
        if isinstance(message, Report):
            given.progress += message.progress
            if message.done:
                del self._given[worker]
            return message
        if isinstance(message, Line):
            pass_on(message)
            return Report(0)
        del self._given[worker]
        self.workers[worker].close()
        self.workers[worker].end()
        problem = f"the worker of {', '.join(given.names)} {message}"
        if isinstance(message, UserError):
            raise UserError(problem)
        reason = self.count_failure(given.names, problem)
        self.workers[worker] = self._kind(self.tasks[worker])
        return Report(-given.progress, lost=reason)

    def count_failure(self, names: Sequence[str], problem: str) -> str:
        """Count that jobs failed, and put it into words; raises `JobFailed` if once too often."""
        if any(self._failures[name] >= self.patience.retries for name in names):
            raise JobFailed(problem)
        self._failures.update(names)
        tries = max(self._failures[name] for name in names)
        return f"{problem}; it is tried again, {tries} of {self.patience.retries} times"

    def close(self) -> None:
        """End the workers; those that do not leave by themselves are killed."""
        latest = time.monotonic() + STOP_SECONDS
        with contextlib.ExitStack() as ends:  # all of them, also if Ctrl-C comes once more
            for worker in self.workers:
                ends.callback(lambda worker=worker: worker.end(latest - time.monotonic()))
                worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
