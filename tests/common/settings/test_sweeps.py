"""Sweeps through submitit: jobs of this machine, their errors, and what is refused beforehand."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import submitit  # noqa: F401  here: its set-up of logging would close streams that pytest captures
from submitit.local.local import LocalJob

from common.foundation.errors import UserError
from common.settings import sweeps
from common.settings.config import ROOT
from tests.helpers.processes import alive, children, wait_for

LAUNCH = ["-m", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]
# Every process of a job notes what it is and what it has with its peers. Some jobs then fail.
SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
from common.foundation.errors import UserError
from common.foundation.processes import stop_on_signal
from common.settings.launch import hydra_main

@hydra_main
def main(config):
    from common.training.team import make_team

    with make_team("cpu", 1) as team:
        import torch
        mean = team.average(torch.tensor(float(team.rank)))
        note = {"size": team.size, "mean": float(mean), "command": sys.argv, "run": config.run_name}
        Path(f"{config.seed}-{team.rank}.json").write_text(json.dumps(note))
    if config.seed == 3:
        raise UserError("a dataset is missing")
    if config.seed == 4:
        raise ArithmeticError("no luck")
    if config.seed == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    if config.seed == 6:
        with stop_on_signal() as received:
            Path("waiting").touch()
            while not received: time.sleep(0.01)
            Path("saved").touch()
        raise SystemExit(128 + received[0])

if __name__ == "__main__":
    main()
"""
FAILED = [
    "  seed=3: a dataset is missing",
    "  seed=4: ArithmeticError: no luck",
]


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    (folder / "script.py").write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, "script.py", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background of a shell ignores SIGINT, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@contextlib.contextmanager
def waiting(folder: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    """A sweep whose job of seed 6 has begun to wait for a signal."""
    process = start(folder, *arguments)
    try:
        wait_for((folder / "waiting").exists, 300)
        yield process
    finally:
        if process.poll() is None:
            for child in children(process.pid):
                os.kill(child, signal.SIGTERM)
            process.kill()


def finish(process: subprocess.Popen) -> tuple[int, list[str]]:
    """Exit code, and lines of stderr."""
    errors = process.communicate()[1].splitlines()
    return process.returncode, errors


def notes(folder: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_a_sweep_runs_every_job_and_lists_what_failed(tmp_path: Path) -> None:
    code, errors = finish(start(tmp_path, "-m", "seed=2,3,4,7"))
    assert code == 2
    assert errors[-3:] == ["2 of 4 jobs failed:", *FAILED]
    assert sorted(notes(tmp_path)) == ["2-0", "3-0", "4-0", "7-0"]
    assert errors.count("error: a dataset is missing") == 1
    assert sum(line.startswith("Traceback") for line in errors) == 1  # the fault's


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_whole_sweep(number: int, code: int, tmp_path: Path) -> None:
    with waiting(tmp_path, "-m", "seed=3,6,7") as process:
        process.send_signal(number)
        ended, errors = finish(process)
    assert ended == code and (tmp_path / "saved").exists()
    assert errors[-2:] == ["1 of 2 jobs failed:", FAILED[0]]
    assert "7-0" not in notes(tmp_path)


def test_all_submitted_jobs_run_and_those_that_failed_or_died_are_listed(tmp_path: Path) -> None:
    code, errors = finish(start(tmp_path, *LAUNCH, "seed=3,5,4,7"))
    assert code == 2
    heading, first, second, third = errors[-4:]
    assert (heading, first, third) == ("3 of 4 jobs failed:", *FAILED)
    assert re.match(r"  seed=5: Job \d+ .* has not produced any output", second)
    assert sorted(notes(tmp_path)) == ["3-0", "4-0", "5-0", "7-0"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_jobs_of_this_machine(number: int, code: int, tmp_path: Path) -> None:
    with waiting(tmp_path, *LAUNCH, "seed=6") as process:
        jobs = children(process.pid)
        process.send_signal(number)
        assert finish(process)[0] == code
    assert jobs and (tmp_path / "saved").exists()
    wait_for(lambda: not any(map(alive, jobs)))


def test_jobs_of_a_cluster_go_on_and_are_named(monkeypatch, capsys) -> None:
    ended = []
    monkeypatch.setattr(os, "kill", lambda number, signal: ended.append(number))
    here = LocalJob("folder", "12")
    monkeypatch.setattr(LocalJob, "done", lambda job: bool(ended))
    there = [SimpleNamespace(job_id=f"{n}", done=lambda n=n: n == 34) for n in (34, 35, 36)]
    sweeps.stop_jobs([there[0], here, *there[1:]])
    assert ended == [12]
    assert capsys.readouterr().out == "these jobs go on, to be ended by scancel: 35 36\n"


def test_tasks_of_a_job_are_a_team_and_its_error_reaches_the_launcher(tmp_path: Path) -> None:
    overrides = ["seed=range(3,4)", "run_name=run_${seed}", "hydra.launcher.tasks_per_node=2"]
    code, errors = finish(start(tmp_path, *LAUNCH, *overrides))
    assert code == 2
    assert errors[0].startswith("Error executing job with overrides: ['seed=3', ")
    assert errors[1] == "error: a dataset is missing"
    found = notes(tmp_path)
    assert sorted(found) == ["3-0", "3-1"]
    assert {(note["size"], note["mean"], note["run"]) for note in found.values()} == {
        (2, 0.5, "run_3")
    }
    assert found["3-1"]["command"][:2] == ["script.py", "seed=3"]  # what repeats it
    (log,) = tmp_path.glob("output/multirun/.submitit/*/*_0_log.err")
    assert "error: a dataset is missing" in log.read_text()


@pytest.fixture
def alone(monkeypatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (LAUNCH[1:], "hydra/launcher=submitit_local is for sweeps; add -m"),
        (LAUNCH[:2], "end each job after an hour; add hydra.launcher.timeout_min=MINUTES"),
    ],
)
def test_a_launcher_that_would_surprise_is_refused(arguments, message, alone) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        sweeps.uses_submitit(arguments)


def test_only_submitit_is_submitit(alone) -> None:
    assert sweeps.uses_submitit([*LAUNCH, "seed=0,1"])
    assert not sweeps.uses_submitit(["-m", "seed=0,1"])
    assert not sweeps.uses_submitit(["seed=0"])


@pytest.mark.parametrize("present", [[], ["submitit"], ["hydra_plugins"]])
def test_a_missing_package_is_named(present, alone, monkeypatch) -> None:
    def find(name: str) -> object:
        if "." in name and "hydra_plugins" not in present:
            raise ModuleNotFoundError(name)
        return object() if name in present else None

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(UserError, match="pip install hydra-submitit-launcher==") as error:
        sweeps.uses_submitit(LAUNCH)
    (version,) = re.findall(r"hydra-submitit-launcher==\S+", str(error.value))
    assert version in (ROOT / "requirements.txt").read_text().split()


def test_torchrun_trains_one_agent(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="-m starts one run after the other, torchrun one run"):
        sweeps.is_sweep(["-m", "seed=0,1"])


def test_faults_and_stops_of_a_job_are_errors_of_the_sweep(monkeypatch, capsys) -> None:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    config = OmegaConf.create({"overrides": {"task": ["seed=3"]}})
    monkeypatch.setattr(HydraConfig, "get", lambda: config)
    monkeypatch.setattr(sys, "argv", ["submitit"])
    for variable in ("EXECUTOR", "LOCAL_JOB_ID"):
        monkeypatch.setenv(f"SUBMITIT_{variable}", "local")
    with (
        pytest.raises(UserError, match="ArithmeticError: no luck"),
        sweeps.submitted_job("train.py"),
    ):
        raise ArithmeticError("no luck")
    assert "Traceback" in capsys.readouterr().err
    stopped = pytest.raises(UserError, match=r"it was stopped \(exit code 143\); the same command")
    with stopped, sweeps.submitted_job("train.py"):
        raise SystemExit(143)
    assert sys.argv == ["train.py", "seed=3"]
