"""Tables and plans check what figures were computed from: checkpoint, settings, data."""

import json
import os
import shutil
from pathlib import Path

import pytest

from common.foundation.files import write_json
from common.paper import records, tables
from common.paper.reproduce import make_plan
from common.runs.identity import dataset_source
from common.settings.config import ROOT
from datasets.store import Dataset, episode_path
from tests.helpers.crashes import refusal
from tests.helpers.run_folders import add_checkpoint, add_evaluation, add_origin, add_run

CELL = "ppp-state/ec-sgiql"
ONE, OTHER = ({"place": "data", "content": c * 64, "episodes": 4, "rows": 40} for c in "ab")


def test_a_cell_of_runs_on_different_data_is_told(tmp_path, capsys) -> None:
    for seed, source in enumerate((ONE, ONE, OTHER)):
        add_run(tmp_path, CELL, seed)
        add_origin(add_evaluation(tmp_path, CELL, seed, [1, 0]), "0", {"dataset": source})
    tables.main([str(tmp_path), str(tmp_path / "mine")])
    told = f"{CELL} has runs on different data: {'a' * 12} (seed 0, 1), {'b' * 12} (seed 2)"
    assert told in capsys.readouterr().out.splitlines()
    text = (tmp_path / "mine" / "main.md").read_text()
    assert "ppp-cube-noisy-v0, of different content | 36 |" in text  # rows less episodes
    shutil.rmtree(tmp_path / "eval" / "ppp-state_ec-sgiql_last_2_20260101-000000")
    tables.main([str(tmp_path), str(tmp_path / "mine")])
    assert "different data" not in capsys.readouterr().out


def test_files_of_earlier_versions_say_nothing_of_their_data(tmp_path) -> None:
    folder = next(ROOT.glob("results/*/runs.csv")).parent
    data = records.load(folder)
    assert set(data.runs.data_content) == {""} and not list(records.mixed(data.runs))


def test_an_evaluation_whose_run_has_learned_on_is_told(tmp_path, capsys) -> None:
    run = add_run(tmp_path, CELL, 0)
    evaluation = add_evaluation(tmp_path, CELL, 0, [1, 0], updates=20)
    add_checkpoint(run, 20)
    tables.main([str(tmp_path), str(tmp_path / "mine")])
    assert "evaluate it again" not in capsys.readouterr().out
    add_origin(evaluation, add_checkpoint(run, 20, data={"dataset": ONE}))
    tables.main([str(tmp_path), str(tmp_path / "mine")])
    assert "evaluate it again" not in capsys.readouterr().out
    add_checkpoint(run, 30, data={"dataset": ONE})
    tables.main([str(tmp_path), str(tmp_path / "mine")])
    line = f"{evaluation.name} is of {run}/last.safetensors as it was after 20 updates, not as it "
    assert line + "is now; evaluate it again" in capsys.readouterr().out.splitlines()


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Makes a plan of one evaluation, with further arguments."""
    monkeypatch.chdir(ROOT)
    places = [f"output_dir={tmp_path}/output", f"data_dir={tmp_path}/data", "seeds=0"]
    return lambda *more: make_plan(["main", "smoke", *places, "experiments=ppp-state", *more])


def test_an_evaluation_counts_for_the_checkpoint_and_settings_that_it_is_of(plan, tmp_path) -> None:
    """Whatever the times of the files say, which copies change."""
    made, output = plan("agents=ec-sgiql"), tmp_path / "output"
    run = add_run(output, CELL, 0)
    sums = [add_checkpoint(run, 10, which) for which in ("last", "best")]
    line = made._line("eval", CELL)
    for which, checksum in zip(("last", "best"), sums, strict=True):
        folder = add_evaluation(output, CELL, 0, [1], checkpoint=which, overrides=line)
        add_origin(folder, checksum)
        os.utime(folder / "metrics.json", (0, 0))
    assert made.evaluations() == []
    file = output / "eval" / "ppp-state_ec-sgiql_last_0_20260101-000000" / "metrics.json"
    metrics = json.loads(file.read_text())
    write_json(file, metrics | {"settings": metrics["settings"] | {"num_eval_episodes": 99}})
    (job,) = made.evaluations()
    assert job.name == "eval ppp-state/ec-sgiql last seed 0"
    write_json(file, metrics)
    assert made.evaluations() == []
    add_checkpoint(run, 11)
    assert len(made.evaluations()) == 1


def test_a_finished_training_whose_data_have_changed_is_not_passed_over(
    plan, tiny_data, tmp_path
) -> None:
    made = plan("agents=ec-sgiql")
    config = made._config("train", CELL)
    data = Path(shutil.copytree(tiny_data / "tiny", tmp_path / "data" / config.train_dataset_name))
    run = add_run(tmp_path / "output", CELL, 0, [0.5] * (config.steps // 10 + 1))
    dataset = Dataset.open(data.parent, data.name)
    source = dataset_source(dataset, ["actions", "qpos"], div=config.train_dataset_div)
    add_checkpoint(run, config.steps, data={"dataset": source})
    assert made.trainings() == []
    shutil.copy(*(episode_path(data, "train", index) for index in (1, 0)))
    assert f"{run} learned from other data: dataset {data} (6 episodes" in refusal(made.trainings)
    allowing = plan("agents=ec-sgiql", "allow_changed_data=true")
    assert allowing.trainings() == []
    assert "allow_changed_data=true" in allowing.scale.overrides("train", CELL)
    shutil.rmtree(data)
    assert made.trainings() == []
