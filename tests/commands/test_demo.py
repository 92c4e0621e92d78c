"""commands/demo.sh with an agent made here."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from common.data.normaliser import Normaliser
from common.runs.agents import save_checkpoint
from common.runs.setup import make_setup, observe
from envs.make import make_world
from tests.helpers.shells import REPOSITORY, this_python


@pytest.fixture
def demo(tmp_path):
    """Runs the command with folders of the test's own."""
    environment = os.environ | {
        "VENV": str(this_python(tmp_path)),
        "AGENTS": str(tmp_path / "agents"),
        "OUTPUT": str(tmp_path / "output"),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = ["bash", str(REPOSITORY / "commands" / "demo.sh"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


def add_agent(config, folder: Path) -> None:
    """An untrained agent as train.py would leave it."""
    folder.mkdir(parents=True)
    world = make_world(config)
    normaliser = Normaliser.none(torch.device("cpu"))
    setup = make_setup(config, world, observe(config, world), normaliser)
    save_checkpoint(folder / "last.safetensors", config, setup, 0, {}, {})


def test_an_agent_is_shown(demo, tiny_config, tmp_path):
    add_agent(tiny_config(), tmp_path / "agents" / "second")
    (tmp_path / "agents" / "first").mkdir()
    (tmp_path / "agents" / "first" / "last.safetensors").touch()
    small = ["num_eval_episodes=1", "max_episode_steps=3", "threads=1", "num_workers=1"]
    done = demo("second", *small)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "output" / "report.html").read_text()
    assert f"{tmp_path}/agents/second/last.safetensors" in page
    assert "success" in done.stdout and "report.html" in done.stdout.splitlines()[-1]


def test_without_an_agent_there_is_one_line(demo, tmp_path):
    for folder in (False, True):
        if folder:
            (tmp_path / "agents" / "empty").mkdir(parents=True)
        done = demo()
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: no agent in {tmp_path}/agents; train one")
        assert done.stderr.count("\n") == 1


def test_another_name_is_refused(demo, tmp_path):
    (tmp_path / "agents" / "mine").mkdir(parents=True)
    (tmp_path / "agents" / "mine" / "last.safetensors").touch()
    done = demo("yours")
    assert done.returncode == 2
    assert done.stderr == f"error: no agent yours in {tmp_path}/agents; there are: mine\n"
