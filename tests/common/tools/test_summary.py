"""The table of a run: its newest evaluations, and no others'."""

import json
import os
import sys

import pytest

from common.tools import summary

MEASURED = ("success", "success_frac", "episode_reward", "interaction_rate")  # of a cube world
FIGURE = {"mean": 0.5, "low": 0.36, "high": 0.64, "count": 50}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "train" / "mine"
    folder.mkdir(parents=True)
    return folder


def add(run, name: str, variant: str, *, age: int, success: float, owner=None, updates=700):
    """An evaluation as evaluate.py writes it, `age` seconds old."""
    folder = run.parents[1] / "eval" / name
    folder.mkdir(parents=True)
    metrics = {
        "summary": {name: dict(FIGURE) for name in ("episode_length", *MEASURED)},
        "episodes": 50,
        "checkpoint": str((owner or run) / "last.safetensors"),
        "updates": updates,
        "settings": {"eval_variant_name": variant, "rep_model_checkpoint": None},
    }
    metrics["summary"]["success"]["mean"] = success
    file = folder / "metrics.json"
    file.write_text(json.dumps(metrics))
    moment = file.stat().st_mtime - age
    os.utime(file, (moment, moment))
    return folder


def test_the_newest_evaluation_of_each_variant_counts(run):
    newest = add(run, "c", "subgoals", age=10, success=0.8)
    add(run, "a", "subgoals", age=30, success=0.1)
    add(run, "d", "subgoals", age=20, success=0.2)
    plain = add(run, "b", "", age=40, success=0.4)
    found = summary.evaluations(run)
    assert {variant: folder for variant, (folder, _) in found.items()} == {
        "as trained": plain,
        "subgoals": newest,
    }
    assert found["subgoals"][1]["summary"]["success"]["mean"] == 0.8


def test_evaluations_of_other_checkpoints_do_not_count(run):
    add(run, "a", "subgoals", age=1, success=0.9, owner=run.parent / "other")
    assert summary.evaluations(run) == {}


def test_a_checkpoint_given_relative_to_the_working_directory_is_the_same(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    add(run, "a", "subgoals", age=1, success=0.9, owner=run.relative_to(run.parent))
    assert list(summary.evaluations(run)) == ["subgoals"]


def test_a_line_has_updates_episodes_and_figures_with_intervals(run):
    add(run, "a", "subgoals", age=2, success=0.8)
    add(run, "b", "no-subgoals", age=1, success=0.3, updates=12000)
    heading, *lines = summary.table(summary.evaluations(run)).splitlines()
    assert heading.split() == ["updates", "episodes", *MEASURED]
    rest = ["0.50", "[0.36,", "0.64]"] * 3
    assert lines[0].split() == ["subgoals", "700", "50", "0.80", "[0.36,", "0.64]", *rest]
    assert lines[1].split() == ["no-subgoals", "12000", "50", "0.30", "[0.36,", "0.64]", *rest]
    assert len({len(line) for line in (heading, *lines)}) == 1


def test_command_prints_the_table_and_the_files_that_exist(run, monkeypatch, capsys):
    folder = add(run, "a", "subgoals", age=1, success=0.8)
    made = [run / "curves.png", folder / "video.mp4", folder / "episodes.csv"]
    for path in made:
        path.touch()
    monkeypatch.setattr(sys, "argv", ["summary", str(run)])
    summary.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("subgoals ")
    assert lines[3:] == [str(path) for path in made]


def test_metrics_that_a_world_has_not_have_no_column(run):
    file = add(run, "a", "subgoals", age=1, success=0.8) / "metrics.json"
    metrics = json.loads(file.read_text())
    del metrics["summary"]["interaction_rate"]
    file.write_text(json.dumps(metrics))
    heading, line = summary.table(summary.evaluations(run)).splitlines()
    assert "interaction_rate" not in heading and "episode_reward" in heading
    assert len(heading) == len(line)


def test_the_newest_picture_of_the_encoder_is_listed_once(run, tmp_path):
    pictures = tmp_path / "encoder" / "pictures"
    pictures.mkdir(parents=True)
    for epoch in (1, 2):
        (pictures / f"epoch_000{epoch}.png").touch()
    for name, variant in (("a", "subgoals"), ("b", "no-subgoals")):
        file = add(run, name, variant, age=1, success=0.8) / "metrics.json"
        metrics = json.loads(file.read_text())
        metrics["settings"]["rep_model_checkpoint"] = str(tmp_path / "encoder")
        file.write_text(json.dumps(metrics))
    assert summary.files(run, summary.evaluations(run)) == [pictures / "epoch_0002.png"]


def test_command_explains_that_there_is_no_evaluation(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["summary", str(run)])
    with pytest.raises(SystemExit) as ending:
        summary.main()
    assert ending.value.code == 2
    assert f"make one with evaluate.py eval_checkpoint={run}" in capsys.readouterr().err
