"""Sweeps through submitit: jobs of this machine, their errors, and what is refused beforehand."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import submitit  # noqa: F401  here: its set-up of logging would close streams that pytest captures

from common.foundation.errors import UserError
from common.settings import launch as sweeps
from common.settings.config import ROOT

LAUNCH = ["-m", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]
# Every process of a job notes what it is and what it has with its peers; then the job fails.
SCRIPT = """
import json, os, sys
from pathlib import Path
from common.settings.launch import hydra_main
from common.foundation.errors import UserError

@hydra_main
def main(config):
    import torch
    from common.training.team import make_team

    with make_team("cpu", 1) as team:
        mean = team.average(torch.tensor(float(team.rank)))
        note = {"size": team.size, "mean": float(mean), "command": sys.argv, "run": config.run_name}
        Path(f"{config.seed}-{team.rank}.json").write_text(json.dumps(note))
    raise UserError("a dataset is missing")

if __name__ == "__main__":
    main()
"""


def test_tasks_of_a_job_are_a_team_and_its_error_reaches_the_launcher(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    overrides = ["seed=range(3,4)", "run_name=run_${seed}", "hydra.launcher.tasks_per_node=2"]
    done = subprocess.run(
        [sys.executable, "script.py", *LAUNCH, *overrides],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith("Error executing job with overrides: ['seed=3', ")
    assert second == "error: a dataset is missing"
    notes = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert sorted(notes) == ["3-0", "3-1"]
    assert {(note["size"], note["mean"], note["run"]) for note in notes.values()} == {
        (2, 0.5, "run_3")
    }
    assert notes["3-1"]["command"][:2] == ["script.py", "seed=3"]  # what repeats it
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
        sweeps.uses_submitit(["-m", "seed=0,1"])


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
