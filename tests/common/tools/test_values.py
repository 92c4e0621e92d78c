"""The table of V(s, g), with values that are known."""

import math
import shutil
from types import SimpleNamespace

import pytest
import torch

import train
from common.data.wants import Transitions
from common.runs.folders import run_path
from common.tools import values
from datasets.store import episode_path
from tests.helpers.buffers import make

GAMMA, STEP = 0.9, 10


def agent_with(value) -> SimpleNamespace:
    """An agent of this V(s, g); states are numbers of rows, (B, 1, 1)."""
    return SimpleNamespace(
        value=lambda s, g: value(s.flatten(), g.flatten()),
        wants=Transitions(STEP),
        context=SimpleNamespace(device=torch.device("cpu")),
    )


@pytest.fixture
def buffer():
    return make([30, 80, 8])


def test_the_value_of_the_data_s_way_is_its_cost(buffer):
    cost = lambda s, g: -(1 - GAMMA ** (g - s - 1).clamp(min=0)) / (1 - GAMMA)  # noqa: E731
    rows = values.value_rows(agent_with(cost), buffer, GAMMA)
    assert [row.distance for row in rows] == [0, 5, 10, 25, 50, 75]  # 79 steps at most
    for row in rows:
        assert row.mean == pytest.approx(row.way, abs=1e-4)
        assert row.low == pytest.approx(row.high)
        if row.distance <= STEP:
            assert math.isnan(row.progress)
        else:
            assert row.progress == 1.0


def test_a_value_without_knowledge_tells_progress_by_chance(buffer):
    generator = torch.Generator().manual_seed(0)
    noise = lambda s, g: torch.randn(len(s), generator=generator)  # noqa: E731
    last = values.value_rows(agent_with(noise), buffer, GAMMA)[-1]
    assert last.progress == pytest.approx(0.5, abs=0.06)
    assert (last.low, last.high) == (pytest.approx(-1.28, abs=0.2), pytest.approx(1.28, abs=0.2))


def test_rewards_of_the_world_count_until_the_goal_is_reached_first():
    """Every tenth state is like the goal: no way is longer than ten steps."""
    buffer = make([80], reward=lambda rows, goals: (rows["x"] == goals["x"]).float() - 1)
    buffer.reward_rows["x"] = torch.arange(80) % 10
    flat = values.value_rows(agent_with(lambda s, g: torch.zeros(len(s))), buffer, GAMMA)
    ways = {row.distance: row.way for row in flat}
    assert ways[5] == pytest.approx(-(1 - GAMMA**4) / (1 - GAMMA))  # the fifth step reaches it
    assert ways[10] == ways[50] == 0.0  # reached at once
    assert ways[25] == ways[75] == ways[5]


def test_pairs_stay_in_their_episodes(buffer):
    apart = []
    spy = lambda s, g: apart.append((g - s, s)) or torch.zeros(len(s))  # noqa: E731
    values.value_rows(agent_with(spy), buffer, GAMMA)
    assert {float(d.min()) for d, _ in apart} >= {0, 5, 10, 25, 50, 75, 15, 40, 65}
    assert all(d.min() == d.max() for d, _ in apart)
    starts = torch.cat([s for d, s in apart if d[0] == 25])
    assert set(starts.int().tolist()) == {*range(5), *range(30, 85)}


@pytest.mark.parametrize("agent", ["sgiql", "hiql"])
def test_a_run_is_described(agent, tiny_config, capsys, monkeypatch):
    config = tiny_config(f"agent={agent}", "steps=1", "arch_mlp.h_dim=8")
    train.run(config)
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["values", str(run_path(config))])
    values.main()
    heading, columns, *rows = capsys.readouterr().out.splitlines()
    assert heading == f"{run_path(config)}, 1 updates, gamma {config.gamma}"
    assert columns.split()[-1] == "progress" and [row.split()[0] for row in rows][:2] == ["0", "5"]


def test_other_data_than_the_run_s_are_told(tiny_data, tiny_config, tmp_path):
    data = shutil.copytree(tiny_data, tmp_path / "own")
    config = tiny_config("agent=iql", "steps=1", f"data_dir={data}")
    train.run(config)
    shutil.copy(*(episode_path(data / "tiny", "train", index) for index in (1, 0)))
    heading, told, columns, *_ = values.describe(str(run_path(config))).splitlines()
    assert told.startswith(f"not the data it learned from: dataset {data}/tiny (6 episodes, 150")
    assert "1 updates" in heading and "progress" in columns


def test_an_agent_without_values_is_refused(tiny_config, capsys, monkeypatch):
    config = tiny_config("agent=ecdiffuser", "steps=1")
    train.run(config)
    monkeypatch.setattr("sys.argv", ["values", str(run_path(config))])
    with pytest.raises(SystemExit):
        values.main()
    assert "ecdiffuser has no value function" in capsys.readouterr().err
