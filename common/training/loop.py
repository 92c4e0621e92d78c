"""Training loop of agents and encoders: update, log, evaluate, save; stoppable at any moment."""

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from common.foundation.device import describe_device
from common.foundation.errors import UserError
from common.foundation.processes import stop_on_signal
from common.foundation.progress import Bar
from common.runs.folders import AGENT_RUNS, RunKind, open_run, run_path
from common.runs.identity import Origin
from common.runs.metrics import MetricsLog, Tracker
from common.settings.config import Config
from common.training.diagnosis import Problems, Watch
from common.training.source import Source
from common.training.team import Team

STOP_EVERY = 10  # updates after which several GPUs agree on a stop, for which they are waited

Sums = dict[str, Tensor]  # metric -> its sum over the updates since the last row


def add(sums: Sums, metrics: Mapping[str, Tensor]) -> None:
    """Add the metrics of one update to the running sums, in place."""
    for name, value in metrics.items():
        if name in sums:
            sums[name] += value
        else:
            sums[name] = value.clone()


@dataclass(frozen=True)
class Rhythm:
    """Updates of the whole run, and between two rows, evaluations and checkpoints."""

    steps: int
    log: int
    evaluate: int
    save: int


class Loop(ABC):
    """One training run in its folder.

    On CPU a run is a pure function of its settings: stopped at any moment and started again, it
    ends with the same parameters and metrics. All that changes lies in the `last` checkpoint:
    parameters, moments, running sums of the metrics; random draws depend on seed and update alone.

    Several processes, a `team`, train in one folder that all of them see; the main one writes.

    Attributes:
        step: updates done. evaluated: the update of the newest evaluation.
        best: figure of the best evaluation so far.
        totals: sums of metrics that the `last` checkpoint holds.
        logged: checksums of the metrics files at that checkpoint.
    """

    evaluation_log: ClassVar[str]  # file of the evaluations' metrics, without its ending
    speed: ClassVar[str]  # column of timing.csv, of which an update has `size`
    remedy: ClassVar[str]  # against numbers that are not finite
    saves_evaluated: ClassVar[bool] = False  # whether a checkpoint follows each evaluation
    saves: bool = True  # whether there are checkpoints
    size: int = 1
    shown: Mapping[str, str]  # metrics beside the progress bar, by their label there
    best: float

    def __init__(
        self, config: Config, rhythm: Rhythm, folder: Path, team: Team, source: Source
    ) -> None:
        self.config, self.rhythm, self.folder = config, rhythm, folder
        self.team, self.source = team, source
        self.step = self.evaluated = 0
        self.totals: Sums = {}
        self.logged: dict[str, int] = {}
        self._restore() if self.last.exists() else self._prepare()
        self.saved = self._position  # of the `last` checkpoint
        if not team.agreed(self.step):
            raise UserError(
                f"the processes do not see the same {self.last}; output_dir must lie where all do"
            )
        if team.is_main:
            rows = {"train": self.step, self.evaluation_log: self.evaluated, "timing": self.step}
            self.logs = {  # with their rows up to those of the checkpoint
                name: MetricsLog(folder / f"{name}.csv", step or None, self.logged.get(name))
                for name, step in rows.items()
            }
            self.tracker = Tracker(config, folder, config.raw)
            self.watch = Watch()

    @property
    def last(self) -> Path:
        return self.folder / "last.safetensors"

    @property
    def finished(self) -> bool:
        """True if nothing is left to do."""
        return self.step >= self.rhythm.steps and not self._evaluation_due

    def run(self) -> int | None:
        """Do all updates that are left; returns the signal that stopped it before, if one did.

        State is saved in both cases. A signal to one process stops all. It also breaks off an
        evaluation, which is then done first thing after the restart.
        """
        rhythm = self.rhythm
        about = {"total": rhythm.steps, "initial": self.step, "unit": " updates"}
        self.updates = self._make_updates()
        bar = Bar(desc="train", disable=not self.team.is_main, **about)
        closing = contextlib.closing
        with stop_on_signal() as received, closing(self.source), closing(self.updates), bar:
            self._evaluate_if_due(received)
            stopped_by = self._stopped_by(received)
            began, mark = time.perf_counter(), self.step  # of the stretch whose speed is measured
            while self.step < rhythm.steps and not stopped_by:
                if not self.source.provide(self.step + 1, lambda: bool(received)):
                    stopped_by = self.team.largest(received[0] if received else 0)
                    break
                self.updates.run(self.step + 1)
                self.step += 1
                bar.update()
                if self.step % rhythm.log == 0:
                    now = time.perf_counter()
                    bar.set_postfix(self._log(now - began, self.step - mark), refresh=False)
                    began, mark = now, self.step
                paused = time.perf_counter()
                self._evaluate_if_due(received)
                stopped_by = self._stopped_by(received)
                if self.step % rhythm.save == 0:
                    self._save_last()
                began += time.perf_counter() - paused
            self._save_last()
        if self.team.is_main:
            self.tracker.close()
        return None if self.finished else stopped_by

    def _stopped_by(self, received: list[int]) -> int:
        """The signal that any process has received, else 0; asked at times that all know."""
        now = self.team.device.type == "cpu" or self.step % STOP_EVERY == 0
        if self.team.size > 1 and not (now or self._evaluation_due):
            return 0
        return self.team.largest(received[0] if received else 0)

    # --- records -----------------------------------------------------------------------------

    def _log(self, seconds: float, updates: int) -> dict[str, str]:
        """Write the means since the last row; returns what the progress bar shows."""
        figures = self.source.figures() | self._figures(self._finite_sums(), self.rhythm.log)
        self.updates.reset()
        if not self.team.is_main:
            return {}
        self.watch.report(self.step, self._problems(figures))
        self.logs["train"].write(self.step, figures)
        speed = self.size * updates / seconds
        self.logs["timing"].write(self.step, {"seconds": seconds, self.speed: speed})
        self.tracker.log(self.step, figures | {f"time/{self.speed}": speed})
        return {label: f"{figures[name]:.3g}" for label, name in self.shown.items()}

    def _finite_sums(self) -> Sums:
        """Sums of the metrics since the last row; raises `UserError` if one is not finite."""
        sums = self.updates.sums()
        broken = [name for name, total in sums.items() if not torch.isfinite(total).all()]
        if broken:
            more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
            count = self.step % self.rhythm.log or self.rhythm.log
            between = f"between updates {self.step - count} and {self.step}"
            raise self._not_finite(f"{', '.join(broken[:3])}{more} not finite {between}")
        return sums

    def _not_finite(self, found: str) -> UserError:
        held = f"{self.last} holds an earlier state. " if self.last.exists() else ""
        return UserError(f"{found}. {held}{self.remedy}")

    # --- evaluations and checkpoints ---------------------------------------------------------

    @property
    def _evaluation_due(self) -> bool:
        at = self.step > 0 and self.step % self.rhythm.evaluate == 0
        return (at or self.step == self.rhythm.steps) and self.evaluated != self.step

    def _evaluate_if_due(self, received: list[int]) -> None:
        """Evaluate if it is time to; given up for now when a signal is `received` meanwhile."""
        if not self._evaluation_due:
            return
        self._finite_sums()  # a broken network is not worth it, and must not become `best`
        figures = self._evaluate(lambda: bool(received))
        if figures is not None:
            self.evaluated = self.step
            kind = self.evaluation_log
            row = self.source.counts() | figures
            self.logs[kind].write(self.step, row)
            self.tracker.log(self.step, {f"{kind}/{k}": v for k, v in row.items()})
            self._keep(figures)
        self.evaluated = self.team.largest(self.evaluated)
        if self.saves_evaluated and not self._evaluation_due:
            self._save_last()

    @property
    def _position(self) -> tuple[int, int, int]:
        return self.step, self.evaluated, self.source.progress

    def _save_last(self) -> None:
        """Write all that the run needs to go on, unless that is there already."""
        if self.saved != self._position:
            self._save(self.last)
            self.saved = self._position

    def _save(self, path: Path) -> None:
        """Write a checkpoint, never one of a broken network."""
        sums = self._finite_sums()
        if self.team.is_main and self.saves:
            names = ("train", self.evaluation_log)
            self.logged = {name: self.logs[name].checksum for name in names}
            self._write(path, sums)

    # --- what is trained ---------------------------------------------------------------------

    def _prepare(self) -> None:  # noqa: B027  (most need nothing)
        """Called instead of `_restore` in a new run."""

    @abstractmethod
    def _restore(self) -> None:
        """Go back to the `last` checkpoint: what is trained, and the attributes of this class."""

    @abstractmethod
    def _write(self, path: Path, sums: Sums) -> None:
        """Write all that to `path`, with these running sums; called in the main process."""

    @abstractmethod
    def _make_updates(self) -> Any:
        """Open what computes the updates and adds to `totals`: see `common.training.updates`."""

    @abstractmethod
    def _figures(self, sums: Sums, count: int) -> dict[str, float]:
        """A row, from sums over `count` updates."""

    @abstractmethod
    def _problems(self, figures: Mapping[str, float]) -> Problems:
        """Signs in a row that something is wrong."""

    @abstractmethod
    def _evaluate(self, stopped: Callable[[], bool]) -> dict[str, float] | None:
        """Figures of an evaluation in the main process; None in others, and once `stopped`."""

    @abstractmethod
    def _keep(self, figures: dict[str, float]) -> None:
        """Keep what was evaluated if it is the best so far, and say how good it is."""


def train_in_folder(
    config: Config,
    team: Team,
    make: Callable[[Path], Loop],
    kind: RunKind = AGENT_RUNS,
    remarks: Sequence[str] | None = None,
    origin: Origin = Origin(),  # noqa: B008  a frozen constant
) -> int | None:
    """Train in the run's folder, locked meanwhile; returns the signal that stopped it, if one did.

    Args:
        make: gives the run in a folder, as its `last` checkpoint left it.
        remarks: what to say when it begins; None = a new run begins without a word.
        origin: what it learns from, for its record.
    """
    path = run_path(config, kind)
    with contextlib.ExitStack() as stack:
        if team.is_main:  # the others write nothing, so they need no lock
            about = describe_device(team.device) | {"processes": team.size, "data": origin.sources}
            folder = stack.enter_context(open_run(config, about, kind))
        team.wait()
        loop = make(path)
        if team.is_main and loop.finished:
            print(f"already finished, {loop.step} updates: {path}", *origin.remarks, sep="\n  ")
        elif team.is_main and folder.resumed:
            changes = (*folder.changes, *origin.remarks, *(remarks or ()))
            print(f"continuing {path} at update {loop.step}", *changes, sep="\n  ")
        elif team.is_main and remarks is not None:
            print(path, *remarks, sep="\n  ")
        if loop.finished:
            return None
        stopped_by = loop.run()
        team.wait()
    if team.is_main:
        again = "continues" if loop.saves else "starts over (save_agent=false)"
        stopped = f"stopped; the same command {again}: {path}"
        print(f"finished: {path}" if stopped_by is None else stopped)
    return stopped_by
