"""Metrics files: rows as written, and no duplicates or gaps after a resume."""

import csv
import math
import sys
from types import SimpleNamespace

import pytest
import torch

from common.foundation.errors import UserError
from common.runs.metrics import MetricsLog, Tracker


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_on_disk_at_once_and_exact(tmp_path):
    path = tmp_path / "train.csv"
    log = MetricsLog(path, None)
    log.write(10, {"value/loss": 0.1 + 0.2, "count": 3})
    assert rows(path) == [{"step": "10", "value/loss": repr(0.1 + 0.2), "count": "3"}]
    log.write(20, {"count": 4, "value/loss": torch.tensor(0.5)})
    assert rows(path)[1] == {"step": "20", "value/loss": "0.5", "count": "4"}
    log.write(30, {"count": 5, "value/loss": math.nan})
    assert [row["step"] for row in rows(path)] == ["10", "20", "30"]


@pytest.mark.parametrize("values", [{"a": 1, "b": 2}, {}, {"c": 1}])
def test_columns_are_those_of_the_first_row(tmp_path, values):
    log = MetricsLog(tmp_path / "train.csv", None)
    log.write(1, {"a": 1})
    with pytest.raises(ValueError, match="columns differ"):
        log.write(2, values)
    assert len(rows(log.path)) == 1


def test_columns_stay_fixed_over_a_resume(tmp_path):
    MetricsLog(tmp_path / "train.csv", None).write(1, {"a": 1})
    with pytest.raises(ValueError, match=r"columns differ.*: a, b"):
        MetricsLog(tmp_path / "train.csv", 1).write(2, {"b": 1})


@pytest.mark.parametrize("torn", ["", "5", "5,0.1", "5,0.1,"])
def test_a_resumed_file_equals_an_uninterrupted_one(tmp_path, torn):
    whole, resumed = tmp_path / "whole.csv", tmp_path / "resumed.csv"
    log = MetricsLog(whole, None)
    for step in range(1, 7):
        log.write(step, {"loss": 1 / step, "n": step})
    log = MetricsLog(resumed, None)
    for step in range(1, 5):
        log.write(step, {"loss": 1 / step, "n": step})
    with open(resumed, "a") as file:
        file.write(torn)

    log = MetricsLog(resumed, 3)
    assert [row["step"] for row in rows(resumed)] == ["1", "2", "3"]
    for step in range(4, 7):
        log.write(step, {"loss": 1 / step, "n": step})
    assert resumed.read_bytes() == whole.read_bytes()


def test_a_fresh_start_drops_the_rows_of_a_run_without_checkpoint(tmp_path):
    path = tmp_path / "train.csv"
    MetricsLog(path, None).write(5, {"a": 1})
    MetricsLog(path, None).write(5, {"b": 2})
    assert rows(path) == [{"step": "5", "b": "2"}]


@pytest.mark.parametrize("content", ["", "step,lo", "step,loss\n"])
def test_a_file_without_a_row_starts_over(tmp_path, content):
    path = tmp_path / "train.csv"
    path.write_text(content)
    MetricsLog(path, 100).write(101, {"other": 1})
    assert path.read_text() == "step,other\n101,1\n"


def test_a_folder_that_vanished_is_one_line(tmp_path):
    log = MetricsLog(tmp_path / "train.csv", None)
    log.path = tmp_path / "gone" / "train.csv"
    with pytest.raises(UserError, match="cannot write"):
        log.write(1, {"a": 1})


class Off:
    enable_wandb = False


class On(Off):
    enable_wandb = True
    wandb_name_suffix, wandb_project, wandb_entity, wandb_silent = "-x", "HECRL", None, True


def test_the_tracker_counts_by_updates(tmp_path, monkeypatch):
    """Also when the run goes on, whose rows would else begin at 0 again, offline at least."""
    sent, pages = [], []

    class Page(SimpleNamespace):
        config = SimpleNamespace(update=lambda settings, allow_val_change: None)

        def log(self, values, step):
            sent.append((step, values))

    def init(**options):
        pages.append(options["id"])
        return Page(define_metric=lambda *_, **__: None, finish=lambda: None)

    wandb = SimpleNamespace(init=init, Settings=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for steps in ((10, 20), (20, 30)):
        tracker = Tracker(On(), tmp_path, {})
        for step in steps:
            tracker.log(step, {"a": step / 2})
        tracker.close()
    assert pages[0] == pages[1]
    assert sent == [(step, {"a": step / 2, "step": step}) for step in (10, 20, 20, 30)]


def test_the_tracker_is_silent_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker = Tracker(Off(), tmp_path, {})
    tracker.log(1, {"a": 1.0})
    tracker.close()
    with pytest.raises(UserError, match="enable_wandb=true needs wandb: pip install"):
        Tracker(On(), tmp_path, {})
