"""The training loop: sample, update, log, evaluate, checkpoint; stoppable at any moment."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor
from tqdm import tqdm

from common.agent_files import Setup, load_checkpoint, restore_agent, save_checkpoint
from common.buffer import Buffer
from common.config import Config
from common.errors import UserError
from common.evaluation import evaluate
from common.logger import MetricsLog, Tracker
from common.video import save_grid

# Episodes of the evaluations during training differ from those that evaluate.py draws with the same
# seed, so that choosing `best` by them does not flatter its final figures.
EVALUATION_STREAM = 1 << 32


class Trainer:
    """One training run in its folder.

    A run is a pure function of its settings on CPU: stopped at any moment and started again, it
    ends with the same parameters and metrics. All that changes lies in the `last` checkpoint:
    parameters, moments, random generators, running sums of the metrics.

    Reads of the settings: steps, batch_size, log_freq, checkpoint_freq, eval_*, num_*, save_*.
    """

    def __init__(self, config: Config, setup: Setup, buffer: Buffer, folder: Path) -> None:
        self.config, self.setup, self.buffer, self.folder = config, setup, buffer, folder
        device = setup.normaliser.mean.device
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.step = 0
        self.best = -math.inf  # success of the `best` checkpoint
        self.sums: dict[str, Tensor] = {}  # of the metrics since the last logged step
        if self.last.exists():
            self._restore()
        resume_step = self.step or None
        self.train_log = MetricsLog(folder / "train.csv", resume_step)
        self.eval_log = MetricsLog(folder / "eval.csv", resume_step)
        self.time_log = MetricsLog(folder / "timing.csv", resume_step)
        self.tracker = Tracker(config, folder, config.raw)

    @property
    def last(self) -> Path:
        return self.folder / "last.safetensors"

    def run(self) -> bool:
        """Train up to `steps` updates; False if a signal stopped it before (state is saved)."""
        config, began, first = self.config, time.perf_counter(), self.step
        bar = tqdm(total=config.steps, initial=self.step, desc="train", unit=" updates")
        with _stop_on_signal() as stop, bar:
            while self.step < config.steps and not stop:
                self._update()
                bar.update()
                if self.step % config.log_freq == 0:
                    now = time.perf_counter()
                    bar.set_postfix(self._log(now - began))
                    began = now
                if self.step % config.eval_freq == 0 or self.step == config.steps:
                    paused = time.perf_counter()
                    self._evaluate()
                    began += time.perf_counter() - paused
                if self.step % config.checkpoint_freq == 0:
                    self._save(self.last)
        if self.step > first:
            self._save(self.last)
        self.tracker.close()
        return self.step >= config.steps

    def _update(self) -> None:
        batch = self.buffer.sample(self.config.batch_size, self.generator)
        metrics = self.setup.agent.update(batch, self.generator)
        self.step += 1
        if not self.sums:
            self.sums = {name: torch.zeros_like(value) for name, value in metrics.items()}
        for name, value in metrics.items():
            self.sums[name] += value

    def _log(self, seconds: float) -> dict[str, str]:
        """Write the means since the last row; returns what the progress bar shows."""
        count = self.config.log_freq
        means = {name: float(total) / count for name, total in self.sums.items()}
        self.sums = {}
        self._require_finite(means)
        self.train_log.write(self.step, means)
        speed = count / seconds
        self.time_log.write(self.step, {"seconds": seconds, "updates_per_second": speed})
        self.tracker.log(self.step, means | {"time/updates_per_second": speed})
        return {"V": f"{means['value/mean']:.1f}", "bc": f"{means['policy/imitation']:.3f}"}

    def _require_finite(self, means: dict[str, float]) -> None:
        broken = [name for name, mean in means.items() if not math.isfinite(mean)]
        if broken:
            raise UserError(
                f"{', '.join(broken)} not finite between updates {self.step - self.config.log_freq} "
                f"and {self.step}; {self.last} holds the last state before it. Lower lr or "
                "grad_clip_norm, or look at the dataset"
            )

    def _evaluate(self) -> None:
        """Evaluate, log, and keep the agent as `best` if none succeeded more often."""
        config, setup = self.config, self.setup
        filmed = config.num_video_episodes if config.save_video else 0
        result = evaluate(
            setup.agent,
            setup.world,
            setup.observation,
            setup.normaliser,
            episodes=config.num_eval_episodes,
            seed=config.seed + EVALUATION_STREAM,
            num_envs=config.num_eval_envs,
            workers=config.num_workers,
            videos=filmed,
            video_frame_skip=config.video_frame_skip,
            progress=True,
        )
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

    def _save(self, path: Path) -> None:
        if not self.config.save_agent:
            return
        state = {
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),  # dropout draws from it
            "sums": self.sums,
        }
        save_checkpoint(path, self.config, self.setup, self.step, state, {"best": self.best})

    def _restore(self) -> None:
        checkpoint = load_checkpoint(self.last)
        restore_agent(self.setup, checkpoint)
        state = checkpoint.state["trainer"]
        self.step, self.best = checkpoint.step, checkpoint.extra["best"]
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        device = self.setup.normaliser.mean.device
        self.sums = {name: total.to(device) for name, total in state["sums"].items()}


@contextmanager
def _stop_on_signal() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that the loop can save and end; a second one interrupts it."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
