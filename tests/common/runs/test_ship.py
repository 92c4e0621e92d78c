"""Agents to take away, from a run and evaluations of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train
from common.foundation.errors import UserError
from common.runs import export as ship
from common.runs.agents import load_agent
from common.settings.config import ROOT
from tests.helpers.agents import act

CPU = torch.device("cpu")
LARGEST = 15 * 2**20  # bytes of all agents that come with the code
AGENTS = ROOT / "results" / "agents"


@pytest.fixture
def run(tiny_config, tmp_path) -> Path:
    """A training run of two updates."""
    train.run(tiny_config("steps=2", "run_name=run", "save_video=false"))
    return tmp_path / "train" / "run"


@pytest.fixture
def evaluation(run, tmp_path) -> Path:
    short = ["max_episode_steps=3", "eval_variant_name=short", "save_video=false", "num_workers=1"]
    settings = [f"eval_checkpoint={run}", "device=cpu", f"output_dir={tmp_path}", *short]
    subprocess.run([sys.executable, "evaluate.py", *settings], cwd=ROOT, check=True)
    (folder,) = (tmp_path / "eval").iterdir()
    return folder


def test_an_agent_to_take_away_is_the_agent_without_its_moments(run, evaluation, tmp_path, capsys):
    folder = tmp_path / "agents" / "mine"
    ship.main([str(folder), str(run), str(evaluation)])
    assert {path.name for path in folder.iterdir()} == {
        "last.safetensors",
        "config.json",
        "figures.json",
    }
    whole, slim = (path / "last.safetensors" for path in (run, folder))
    assert slim.stat().st_size < 0.6 * whole.stat().st_size
    (theirs, _, _), (ours, _, step) = (load_agent(path, CPU) for path in (whole, slim))
    for name, learner in theirs.agent.learners.items():
        assert torch.equal(learner.flat, ours.agent.learners[name].flat)
        assert not ours.agent.learners[name].moments["exp_avg"].any()
    assert torch.equal(theirs.normaliser.mean, ours.normaliser.mean)
    settings = (folder / "config.json").read_text()
    assert step == 2 and settings == (run / "config.json").read_text()
    figures = json.loads((folder / "figures.json").read_text())
    assert figures["updates"] == 2 and figures["dataset"] == "tiny"
    found = json.loads((evaluation / "metrics.json").read_text())
    assert figures["data"] == found["data"] and found["data"]["dataset"]["episodes"] == 6
    assert figures["evaluations"]["short"]["episodes"] == 1
    assert figures["evaluations"]["short"]["success"]["count"] == 1


def test_training_starts_from_it(run, tiny_config, tmp_path):
    folder = tmp_path / "agents" / "mine"
    ship.ship(folder, run)
    start = ["train_from_checkpoint=true", f"checkpoint={folder}", "run_name=next", "steps=1"]
    train.run(tiny_config(*start, "save_video=false"))
    assert (tmp_path / "train" / "next" / "last.safetensors").exists()


@pytest.mark.parametrize("agent", ["sgiql", "ecdiffuser"])
def test_an_agent_that_only_acts_acts_alike(agent, tiny_config, tmp_path):
    """And no training starts from it, which would begin with untrained critics."""
    settings = tiny_config(f"agent={agent}", "steps=2", "run_name=run", "save_video=false")
    train.run(settings)
    run, folder = tmp_path / "train" / "run", tmp_path / "mine"
    ship.main([str(folder), str(run), "--acting"])
    whole, slim = (load_agent(path / "last.safetensors", CPU)[0].agent for path in (run, folder))
    obs = torch.randn(3, *whole.context.spec.shape, generator=torch.Generator().manual_seed(0))
    actions = []
    for one in (whole, slim):
        actions.append(act(one, obs, -obs, [0, 0, 0], None, [0, 1, 2])[0])
    assert torch.equal(*actions)
    start = ["train_from_checkpoint=true", f"checkpoint={folder}", "run_name=next"]
    with pytest.raises(UserError, match="lacks what only learning reads; give the run"):
        train.run(tiny_config(f"agent={agent}", *start))


def test_evaluations_of_another_agent_are_refused(run, evaluation, tmp_path):
    other = tmp_path / "train" / "other"
    run.rename(other)
    with pytest.raises(UserError, match=r"is of .*run/last.safetensors, not of .*other"):
        ship.ship(tmp_path / "mine", other, [evaluation])
    with pytest.raises(UserError, match="is no finished evaluation"):
        ship.ship(tmp_path / "mine", other, [tmp_path])
    assert not (tmp_path / "mine").exists()


def test_evaluations_of_an_earlier_checkpoint_are_refused(run, evaluation, tiny_config, tmp_path):
    train.run(tiny_config("steps=3", "run_name=run", "save_video=false"))
    with pytest.raises(UserError, match=r"as it was after 2 updates, not as it is now; evaluate"):
        ship.ship(tmp_path / "mine", run, [evaluation])


def test_the_agents_that_come_with_the_code_load_and_are_small() -> None:
    folders = sorted(path.parent for path in AGENTS.glob("*/last.safetensors"))
    assert sum(file.stat().st_size for file in AGENTS.rglob("*") if file.is_file()) <= LARGEST
    for folder in folders:
        setup, config, step = load_agent(folder / "last.safetensors", CPU)
        figures = json.loads((folder / "figures.json").read_text())
        assert figures["updates"] == step and figures["evaluations"], folder
        assert setup.agent.name == config.agent
