"""Commands run one after another or side by side, so that all can be stopped together."""

import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from common.foundation.errors import UserError
from common.foundation.processes import stop_on_signal

POLL = 0.1  # seconds
LINES = 15  # of a failed command's output that are shown


@dataclass(frozen=True)
class Job:
    """A command with a name for people; its output is appended to `log`."""

    name: str
    command: Sequence[str]
    log: Path


def run_all(jobs: Sequence[Job], at_once: int) -> None:
    """Run the jobs in order, `at_once` side by side; one that fails does not end the others.

    A SIGINT or SIGTERM is passed on to those that run, once, and none is started any more.

    Raises:
        UserError: some failed; it names them, and the ends of their output are printed.
        SystemExit: a signal came; the exit code says which.
    """
    waiting, running = deque(jobs), {}
    failed: list[Job] = []
    with stop_on_signal() as received:
        passed_on = False
        while running or (waiting and not received):
            while waiting and len(running) < at_once and not received:
                job = waiting.popleft()
                running[_start(job)] = job, time.monotonic()
                _tell(f"started, {len(waiting)} waiting", job)
            if received and not passed_on:
                passed_on = True
                for process in running:
                    process.send_signal(received[0])
            for process in [process for process in running if process.poll() is not None]:
                job, began = running.pop(process)
                minutes = (time.monotonic() - began) / 60
                ending = "done" if process.returncode == 0 else f"ended with {process.returncode}"
                _tell(f"{ending} after {minutes:.1f} min", job)
                if process.returncode and not received:
                    failed.append(job)
            time.sleep(POLL)
    for job in failed:
        _tell("failed, at last it said", job)
        print(*job.log.read_text(errors="replace").splitlines()[-LINES:], sep="\n")
    if received:
        print("stopped; the same command continues")
        raise SystemExit(128 + received[0])
    if failed:
        names = ", ".join(job.name for job in failed)
        logs = ", ".join(str(job.log) for job in failed)
        raise UserError(f"{names} failed, see {logs}; the same command continues")


def _start(job: Job) -> subprocess.Popen:
    """Start a job in a session of its own, which Ctrl-C does not reach: a second signal would
    break off the saving that the first one began."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _tell(what: str, job: Job) -> None:
    print(f"{datetime.now():%H:%M:%S} {job.name}: {what}", flush=True)
