"""Training runs as commands, stopped and compared."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import train
from agents.base import Timestep
from agents.iql.iql import IQL
from common.evaluation import evaluate as evaluation_run
from common.evaluation.evaluate import Evaluation, EvaluationStopped, summarise
from common.runs import checkpoint
from common.runs.folders import train_name
from tests.helpers.crashes import Crash
from tests.helpers.shells import REPOSITORY

# Rows after 4, 8, ... updates; evaluations after 9, 18 and 20; checkpoints after 6, 12, 18.
RHYTHM = ("steps=20", "log_freq=4", "eval_freq=9", "checkpoint_freq=6")


def result(successes: int, episodes: int = 10) -> Evaluation:
    """An evaluation in which the first so many episodes succeeded."""
    rows = [
        {"episode": i, "seed": i, "success": float(i < successes), "episode_reward": -float(i)}
        for i in range(episodes)
    ]
    return Evaluation(rows, summarise(rows), [], 1, 1.0)


@pytest.fixture(autouse=True)
def evaluations(monkeypatch):
    """Replaces evaluations, which need worker processes, by a figure made from the agent's action.

    Gives the number of calls, as a list of one figure each.
    """
    figures = []

    def fake(agent, world, observation, normaliser, **options):
        obs = torch.ones(1, *observation.shape)
        action, _ = IQL.act(agent, Timestep(obs, -obs, torch.zeros(1), None, []))
        figures.append(int(action[0, 0].abs() * 1e6) % 10)
        return result(figures[-1])

    monkeypatch.setattr(evaluation_run, "evaluate", fake)
    return figures


def folder_of(config) -> Path:
    return Path(config.output_dir) / "train" / (config.run_name or train_name(config))


def logged(folder: Path, name: str = "train") -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def steps_logged(folder: Path, name: str = "train") -> list[int]:
    return [int(row["step"]) for row in logged(folder, name)]


def assert_same_run(one: Path, other: Path) -> None:
    """Same metrics, byte for byte, and same tensors: parameters, moments, generators, sums."""
    for name in ("train.csv", "eval.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    for name in ("last.safetensors", "best.safetensors"):
        (tensors, meta), (tensors2, meta2) = (checkpoint.load(f / name) for f in (one, other))
        assert tensors.keys() == tensors2.keys()
        assert [key for key in tensors if not torch.equal(tensors[key], tensors2[key])] == []
        assert (meta["step"], meta["extra"]) == (meta2["step"], meta2["extra"])


def interrupt(config, arrange) -> None:
    """Run until the crash that `arrange(monkeypatch)` prepares."""
    with pytest.MonkeyPatch.context() as patch:
        arrange(patch)
        with pytest.raises(Crash):
            train.run(config)


def start(*arguments: str, **environment: str) -> subprocess.Popen:
    """`python ARGUMENTS` at the repository's root, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen, happened: Callable[[], object]) -> None:
    """Wait until something has happened in a process that goes on."""
    deadline = time.monotonic() + 200
    while not happened():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def signal_at(patch, owner, name: str, call: int, number: int) -> None:
    """Let a signal arrive in the `call`-th call of a function."""
    real, calls = getattr(owner, name), 0

    def signalled(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call:
            signal.raise_signal(number)
            if "stopped" in kwargs:
                torch.rand(1)  # as dropout would
                assert kwargs["stopped"]()
                raise EvaluationStopped
        return real(*args, **kwargs)

    patch.setattr(owner, name, signalled)
