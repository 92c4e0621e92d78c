"""Jobs in processes and in this process: replies, progress, second tries, and early ends."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from common.foundation.errors import UserError
from common.foundation.jobs import run_jobs
from common.foundation.pool import JobFailed, Patience, Pool

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import sys
from pathlib import Path
from common.foundation.jobs import run_jobs
from tests.common.foundation.test_pool import Squares

class Own(Squares):
    pass

print("the script is loaded", flush=True)
if __name__ == "__main__":
    run_jobs([{task}(Path(sys.argv[1]))], range(2), lambda n: None)
"""


@pytest.fixture(params=[False, True])
def in_process(request) -> bool:
    return request.param


@dataclass(frozen=True)
class Squares:
    """Squares numbers and says so in `folder`; job `bad` fails the first `times` times."""

    folder: Path
    bad: int = -1
    times: int = 0
    error: type[Exception] = ValueError

    def make(self) -> StringIO:
        return StringIO()

    def run(self, tool, job):
        yield 1
        tries = len(list(self.folder.glob(f"{job}-*")))
        (self.folder / f"{job}-{tries}").touch()
        if job == self.bad and tries < self.times:
            raise self.error("a bad number")
        yield 2
        return job * job


def done(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_worker_answers_with_its_reply(tmp_path, in_process):
    with Pool([Squares(tmp_path)] * 2, Patience(), in_process) as pool:
        for worker, job in enumerate((3, 4)):
            pool.give(worker, job, [f"number {job}"])
        replies, progress = {}, 0
        while pool.busy:
            for worker, report in pool.take():
                progress += report.progress
                if report.done:
                    replies[worker] = report.reply
    assert replies == {0: 9, 1: 16} and progress == 4


@pytest.mark.parametrize("workers", [1, 2])
def test_all_jobs_are_done_once_and_progress_adds_up(tmp_path, in_process, workers):
    progress = []
    run_jobs([Squares(tmp_path)] * workers, range(5), progress.append, in_process=in_process)
    assert done(tmp_path) == [f"{job}-0" for job in range(5)]
    assert sum(progress) == 10


def test_a_failed_job_is_tried_again_and_its_progress_taken_back(tmp_path, in_process, capfd):
    progress = []
    task = Squares(tmp_path, bad=1, times=2)
    run_jobs([task], range(3), progress.append, patience=Patience(60, 2), in_process=in_process)
    assert done(tmp_path) == ["0-0", "1-0", "1-1", "1-2", "2-0"]
    assert sum(progress) == 6 and min(progress) < 0
    said = capfd.readouterr()
    assert "warning: the worker of 1 failed: ValueError: a bad number" in said.out + said.err
    assert "it is tried again, 2 of 2 times" in said.out + said.err


def test_a_job_that_fails_too_often_is_named(tmp_path, in_process):
    task, patience = Squares(tmp_path, bad=1, times=9), Patience(60, 1)
    with pytest.raises(UserError, match=r"worker of 1 failed: ValueError.*; the same command"):
        run_jobs([task], range(3), lambda n: None, patience=patience, in_process=in_process)
    assert done(tmp_path) == ["0-0", "1-0", "1-1"]
    with Pool([task], Patience(), in_process) as pool, pytest.raises(JobFailed, match="number 1"):
        pool.give(0, 1, ["number 1"])
        while pool.busy:
            list(pool.take())


def test_a_mistake_of_the_user_is_not_tried_again(tmp_path, in_process):
    task = Squares(tmp_path, bad=0, times=1, error=UserError)
    with pytest.raises(UserError, match="worker of 0 failed: a bad number; 7 are kept"):
        run_jobs([task], [0], lambda n: None, lambda: "7 are kept", Patience(60, 5), in_process)
    assert done(tmp_path) == ["0-0"]


def test_a_signal_ends_the_work_between_two_reports(tmp_path, in_process, capsys):
    """It comes with the first report."""
    with pytest.raises(SystemExit) as stop:
        run_jobs(
            [Squares(tmp_path)],
            range(10_000),
            lambda n: signal.raise_signal(signal.SIGTERM),
            lambda: "some are kept",
            in_process=in_process,
        )
    assert stop.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().out == "stopped by SIGTERM: some are kept\n"
    left = done(tmp_path)
    time.sleep(0.2)
    assert done(tmp_path) == left and len(left) < 10_000


@pytest.mark.parametrize(("task", "times"), [("Squares", 1), ("Own", 2)])
def test_workers_load_the_running_script_only_if_their_task_is_in_it(tmp_path, task, times):
    (tmp_path / "folder").mkdir()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(task=task))
    command, paths = [sys.executable, script, tmp_path / "folder"], {"PYTHONPATH": str(ROOT)}
    said = subprocess.run(command, env=os.environ | paths, capture_output=True, text=True).stdout
    assert said.count("the script is loaded") == times
    assert done(tmp_path / "folder") == ["0-0", "1-0"]
