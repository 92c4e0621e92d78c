"""The training loop on a network that is one number: what it asks of its source, and when."""

import json
import math
import signal
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from common.settings.config import compose
from common.training.loop import Loop, Rhythm, Source, add
from common.training.team import Team
from tests.helpers.crashes import Crash

CPU = torch.device("cpu")


class Recorder(Source):
    """Remembers what it was asked for, in one list with the updates."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def provide(self, step: int, stopped: Callable[[], bool]) -> bool:
        self.events.append(("provide", step))
        return not stopped()


class Counter(Loop):
    """Counts its updates. `disturbed` is called at update `at`."""

    evaluation_log, speed, remedy, shown = "eval", "updates_per_second", "Lower lr", {}
    best, at = -math.inf, 0

    def _make_updates(self):
        return SimpleNamespace(
            run=self._count, sums=lambda: dict(self.totals), reset=self.totals.clear,
            close=lambda: None,
        )  # fmt: skip

    def _count(self, number: int) -> None:
        self.source.events.append(("update", number))
        if number == self.at:
            self.disturbed()
        add(self.totals, {"number": torch.tensor(float(number))})

    def _figures(self, sums, count):
        return {name: float(total) / count for name, total in sums.items()}

    def _problems(self, figures):
        return {}

    def _evaluate(self, stopped):
        return {"success": 0.5}

    def _keep(self, figures):
        self.best = figures["success"]

    def _write(self, path, sums):
        sums = {name: float(total) for name, total in sums.items()}
        path.write_text(json.dumps([self.step, self.evaluated, self.logged, sums]))

    def _restore(self):
        self.step, self.evaluated, self.logged, sums = json.loads(self.last.read_text())
        self.totals = {name: torch.tensor(total) for name, total in sums.items()}


@pytest.fixture
def make(tmp_path):
    """Opens the run in the test's folder, as it was left."""
    config = compose([])
    return lambda: Counter(config, Rhythm(10, 4, 5, 3), tmp_path, Team(CPU), Recorder())


def expected(first: int, last: int) -> list[tuple[str, int]]:
    return [(what, n) for n in range(first, last + 1) for what in ("provide", "update")]


def test_the_source_is_asked_once_before_each_update(make, tmp_path):
    loop = make()
    assert loop.run() is None and loop.finished
    assert loop.source.events == expected(1, 10)
    rows = (tmp_path / "train.csv").read_text().splitlines()
    assert rows == ["step,number", "4,2.5", "8,6.5"]
    again = make()
    assert again.finished and again.source.events == []


def test_a_source_that_is_stopped_ends_the_run_without_the_update(make, monkeypatch):
    stopped = make()
    provide = stopped.source.provide

    def act(step: int, asked: Callable[[], bool]) -> bool:
        if step == 4:
            signal.raise_signal(signal.SIGTERM)
        return provide(step, asked)

    monkeypatch.setattr(stopped.source, "provide", act)
    assert stopped.run() == signal.SIGTERM and stopped.step == 3
    assert stopped.source.events == [*expected(1, 3), ("provide", 4)]
    last = make()
    assert last.run() is None and last.source.events == expected(4, 10)


def test_a_run_that_goes_on_never_asks_for_what_its_checkpoint_holds(make, tmp_path):
    stopped = make()
    stopped.at, stopped.disturbed = 5, lambda: signal.raise_signal(signal.SIGTERM)
    assert stopped.run() == signal.SIGTERM and stopped.step == 5
    assert stopped.source.events == expected(1, 5)

    def crash() -> None:
        raise Crash

    crashed = make()
    crashed.at, crashed.disturbed = 8, crash
    with pytest.raises(Crash):
        crashed.run()
    assert crashed.source.events == expected(6, 8)
    last = make()
    assert last.run() is None
    assert last.source.events == expected(7, 10)  # the checkpoint is of update 6
    rows = (tmp_path / "train.csv").read_text().splitlines()
    assert rows == ["step,number", "4,2.5", "8,6.5"]
