"""Many jobs, done by a pool of workers until all are done or a signal comes."""

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from common.foundation.errors import UserError
from common.foundation.messages import warn
from common.foundation.pool import JobFailed, Patience, Pool, Task
from common.foundation.processes import stop_on_signal


def run_jobs(
    tasks: Sequence[Task],
    jobs: Iterable[Any],
    on_progress: Callable[[int], object],
    kept: Callable[[], str] = lambda: "the same command continues",
    patience: Patience = Patience(),  # noqa: B008  a frozen constant
    in_process: bool = False,
) -> None:
    """Carry out the jobs in order, with a worker for each task. Call from the main thread.

    All workers have ended when it returns or raises.

    Args:
        jobs: messages name each by its `str`.
        on_progress: hears of progress, which is negative where a job begins again.
        kept: says what is done, for the message of an early end.

    Raises:
        UserError: a job failed too often, or for a reason that is the user's to mend.
        SystemExit: SIGINT or SIGTERM came.
    """
    with stop_on_signal() as received:
        try:
            with Pool(tasks, patience, in_process) as pool:
                _deal(pool, iter(jobs), on_progress, received)
        except (UserError, JobFailed) as error:
            if not received:  # a signal to the whole process group also ends the workers
                raise UserError(f"{error}; {kept()}") from error
    if received:
        print(f"stopped by {signal.Signals(received[0]).name}: {kept()}")
        raise SystemExit(128 + received[0])


def _deal(
    pool: Pool, jobs: Iterator[Any], on_progress: Callable[[int], object], received: list[int]
) -> None:
    """Keep the workers busy until all jobs are done or a signal is received."""
    current: dict[int, Any] = {}

    def give(worker: int, job: Any) -> None:
        current[worker] = job
        if job is not None:
            pool.give(worker, job, [str(job)])

    for worker in range(len(pool.workers)):
        give(worker, next(jobs, None))
    while pool.busy and not received:
        for worker, message in pool.take():
            on_progress(message.progress)
            if message.lost:
                warn(message.lost)
                give(worker, current[worker])
            elif message.done:
                give(worker, next(jobs, None))
