"""The training loop: sample, update, log, evaluate, checkpoint; stoppable at any moment."""

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from common.data.buffer import Buffer
from common.evaluation.evaluate import EvaluationStopped, prepare_evaluation
from common.evaluation.video import save_grid
from common.foundation.device import seeded_generator
from common.foundation.errors import UserError
from common.foundation.processes import stop_on_signal
from common.runs.agents import restore_agent, save_checkpoint
from common.runs.checkpoint import load_checkpoint
from common.runs.metrics import MetricsLog, Tracker
from common.runs.setup import Setup
from common.settings.config import Config
from common.training.diagnosis import Watch, reward_problems, value_problems
from common.training.engine import make_updates
from common.training.team import Team

# Episodes of the evaluations during training differ from those that evaluate.py draws with the same
# seed, so that choosing `best` by them does not flatter its final figures.
EVALUATION_STREAM = 1 << 32
STOP_EVERY = 10  # updates after which several GPUs agree on a stop, for which they are waited


class Trainer:
    """One training run in its folder.

    A run is a pure function of its settings on CPU: stopped at any moment and started again, it
    ends with the same parameters and metrics. All that changes lies in the `last` checkpoint:
    parameters, moments, running sums of the metrics; random draws depend on seed and update alone.

    Several processes, a `team`, train one agent in one folder that all of them see: they share the
    updates, and the main one evaluates and writes while the others wait.

    Reads of the settings: seed, steps, batch_size, parallel_update, compile, cudagraphs, log_freq,
    checkpoint_freq, eval_freq, num_eval_*, num_workers, num_video_episodes, video_frame_skip,
    save_*, subgoal_factor_eval.
    """

    def __init__(
        self, config: Config, setup: Setup, buffer: Buffer, folder: Path, team: Team
    ) -> None:
        self.config, self.setup, self.buffer, self.folder = config, setup, buffer, folder
        self.team = team
        self.step = 0
        self.evaluated = 0  # the update of the newest evaluation
        self.best = -math.inf  # success of the `best` checkpoint
        self.logged: dict[str, int] = {}  # checksums of the metrics files at the `last` checkpoint
        if self.last.exists():
            self.sums = self._restore()  # of metrics not yet logged
        else:
            setup.agent.prepare(buffer)
            self.sums = {}
        self.saved = self._position  # of the `last` checkpoint
        if not team.agreed(self.step):
            raise UserError(
                f"the processes do not see the same {self.last}; output_dir must lie where all do"
            )
        if team.is_main:
            self.evaluate = prepare_evaluation(config, setup)
            self.train_log = self._open_log("train", self.step)
            self.eval_log = self._open_log("eval", self.evaluated)
            self.time_log = MetricsLog(folder / "timing.csv", self.step or None)
            self.tracker = Tracker(config, folder, config.raw)
            self.watch = Watch(folder)

    def _open_log(self, name: str, step: int) -> MetricsLog:
        """The metrics file `name` with its rows up to `step`, those of the checkpoint."""
        return MetricsLog(self.folder / f"{name}.csv", step or None, self.logged.get(name))

    @property
    def last(self) -> Path:
        return self.folder / "last.safetensors"

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.step >= self.config.steps and not self._evaluation_due

    def run(self) -> int | None:
        """Train up to `steps` updates; returns the signal that stopped it before, if one did.

        State is saved in both cases. A signal to one process stops all. It also
        breaks off an evaluation, which is then done first thing after the restart.
        """
        config = self.config
        if self.team.is_main and self.setup.agent.wants.rewards:
            draws = seeded_generator(self.buffer.episodes.first.device, config.seed)
            self.watch.report(self.step, reward_problems(self.buffer, draws))
        began, mark = time.perf_counter(), self.step  # of the stretch whose speed is measured
        self.updates = make_updates(config, self.setup.agent, self.buffer, self.sums, self.team)
        about = {"initial": self.step, "desc": "train", "unit": " updates"}
        bar = tqdm(total=config.steps, disable=not self.team.is_main, **about)
        with stop_on_signal() as received, contextlib.closing(self.updates), bar:
            self._evaluate_if_due(received)
            stopped_by = self._stopped_by(received)
            while self.step < config.steps and not stopped_by:
                self.step += 1
                self.updates.run(self.step)
                bar.update()
                if self.step % config.log_freq == 0:
                    now = time.perf_counter()
                    bar.set_postfix(self._log(now - began, self.step - mark))
                    began, mark = now, self.step
                paused = time.perf_counter()
                self._evaluate_if_due(received)
                stopped_by = self._stopped_by(received)
                if self.step % config.checkpoint_freq == 0:
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

    def _log(self, seconds: float, updates: int) -> dict[str, str]:
        """Write the means since the last row; returns what the progress bar shows."""
        means = self._means()
        self.updates.reset()
        if not self.team.is_main:
            return {}
        possible = self.setup.agent.value_range
        self.watch.report(self.step, value_problems(means, possible, self.step))
        self.train_log.write(self.step, means)
        speed = updates / seconds
        self.time_log.write(self.step, {"seconds": seconds, "updates_per_second": speed})
        self.tracker.log(self.step, means | {"time/updates_per_second": speed})
        return {label: f"{means[name]:.3g}" for label, name in self.setup.agent.shown.items()}

    def _means(self) -> dict[str, float]:
        """Means of the metrics since the last row; raises `UserError` if one is not finite."""
        count = self.step % self.config.log_freq or self.config.log_freq
        means = {name: float(total) / count for name, total in self.updates.sums().items()}
        broken = [name for name, mean in means.items() if not math.isfinite(mean)]
        if broken:
            more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
            held = f"{self.last} holds an earlier state. " if self.last.exists() else ""
            raise UserError(
                f"{', '.join(broken[:3])}{more} not finite between updates {self.step - count} "
                f"and {self.step}. {held}Lower lr or grad_clip_norm, or look at the dataset"
            )
        return means

    @property
    def _evaluation_due(self) -> bool:
        at = self.step > 0 and self.step % self.config.eval_freq == 0
        return (at or self.step == self.config.steps) and self.evaluated != self.step

    def _evaluate_if_due(self, received: list[int]) -> None:
        """Evaluate if it is time to; given up for now when a signal is `received` meanwhile."""
        if not self._evaluation_due:
            return
        self._means()  # a broken agent is not worth it, and must not become `best`
        if self.team.is_main:
            # Training's dropout must not depend on how often, or how far, evaluations ran.
            with contextlib.suppress(EvaluationStopped), torch.random.fork_rng(devices=[]):
                self._evaluate(lambda: bool(received))
        self.evaluated = self.team.largest(self.evaluated)

    def _evaluate(self, stopped: Callable[[], bool]) -> None:
        """Evaluate, log, and keep the agent as `best` if none succeeded more often."""
        self.setup.agent.calibrate(self.buffer)
        try:
            result = self.evaluate(seed=self.config.seed + EVALUATION_STREAM, stopped=stopped)
        except RuntimeError:  # an episode failed for good: what was learned is not lost with it
            self._save_last()
            raise
        self.evaluated = self.step
        figures = result.figures()
        self.eval_log.write(self.step, figures)
        self.tracker.log(self.step, {f"eval/{name}": value for name, value in figures.items()})
        if result.clips:
            save_grid(self.folder / f"video_{self.step}.mp4", result.clips)
        if figures["success"] >= self.best:
            self.best = figures["success"]
            self._save(self.folder / "best.safetensors")
        tqdm.write(
            f"update {self.step}: success {figures['success']:.2f} "
            f"[{figures['success_low']:.2f}, {figures['success_high']:.2f}]"
        )

    @property
    def _position(self) -> tuple[int, int]:
        return self.step, self.evaluated

    def _save_last(self) -> None:
        if self.saved != self._position:
            self._save(self.last)
            self.saved = self._position

    def _save(self, path: Path) -> None:
        """Write a checkpoint, never one of a broken agent."""
        if not self.config.save_agent:
            return
        self._means()
        if not self.team.is_main:
            return
        self.setup.agent.calibrate(self.buffer)
        # torch's own generator is what dropout draws from.
        state = {"torch": torch.get_rng_state(), "sums": self.updates.sums()}
        logged = {"train": self.train_log.checksum, "eval": self.eval_log.checksum}
        extra = {"best": self.best, "evaluated": self.evaluated, "logged": logged}
        save_checkpoint(path, self.config, self.setup, self.step, state, extra)

    def _restore(self) -> dict[str, Tensor]:
        """Go back to the `last` checkpoint; returns its sums of metrics."""
        checkpoint = load_checkpoint(self.last)
        restore_agent(self.setup, checkpoint)
        state = checkpoint.state["trainer"]
        self.step = checkpoint.step
        self.best, self.evaluated = checkpoint.extra["best"], checkpoint.extra["evaluated"]
        self.logged = checkpoint.extra.get("logged", {})  # older checkpoints have none
        torch.set_rng_state(state["torch"])
        device = self.setup.normaliser.mean.device
        return {name: total.to(device) for name, total in state["sums"].items()}
