"""Training of an agent, with evaluations in its world."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from common.data.buffer import Buffer
from common.evaluation.evaluate import EvaluationStopped, prepare_evaluation
from common.evaluation.video import save_grid
from common.foundation.device import seeded_generator
from common.foundation.messages import tell
from common.runs.agents import restore_agent, save_checkpoint
from common.runs.checkpoint import load_checkpoint
from common.runs.setup import Setup
from common.settings.config import Config
from common.training.diagnosis import Problems, reward_problems, value_problems
from common.training.engine import make_updates
from common.training.loop import Loop, Rhythm, Sums
from common.training.source import Source
from common.training.team import Team
from common.training.updates import Updates

# Episodes of the evaluations during training differ from those that evaluate.py draws with the same
# seed, so that choosing `best` by them does not flatter its final figures.
EVALUATION_STREAM = 1 << 32


class Trainer(Loop):
    """One training run of an agent; `best` is chosen by the headline metric of its world.

    The processes of a team share the updates; the main one evaluates while the others wait.
    """

    evaluation_log, speed = "eval", "updates_per_second"
    remedy = "Lower lr or grad_clip_norm, or look at the dataset"

    def __init__(
        self,
        config: Config,
        setup: Setup,
        buffer: Buffer,
        folder: Path,
        team: Team,
        source: Source = Source(),  # noqa: B008  it has no state
    ) -> None:
        self.setup, self.buffer, self.best = setup, buffer, -math.inf
        self.saves, self.shown = config.save_agent, setup.agent.shown
        if team.is_main:
            self.evaluation = prepare_evaluation(config, setup)
        rhythm = Rhythm(config.steps, config.log_freq, config.eval_freq, config.checkpoint_freq)
        super().__init__(config, rhythm, folder, team, source)

    def _prepare(self) -> None:
        self.setup.agent.prepare(self.buffer)

    def _make_updates(self) -> Updates:
        if self.team.is_main and self.setup.agent.wants.rewards and len(self.buffer):
            draws = seeded_generator(self.buffer.episodes.first.device, self.config.seed)
            self.watch.report(self.step, reward_problems(self.buffer, draws))
        return make_updates(self.config, self.setup.agent, self.buffer, self.totals, self.team)

    def _figures(self, sums: Sums, count: int) -> dict[str, float]:
        return {name: float(total) / count for name, total in sums.items()}

    def _problems(self, figures: Mapping[str, float]) -> Problems:
        return value_problems(figures, self.setup.agent.value_range, self.step)

    def _evaluate(self, stopped: Callable[[], bool]) -> dict[str, float] | None:
        if not self.team.is_main:
            return None
        self.setup.agent.calibrate(self.buffer)
        seed = self.config.seed + EVALUATION_STREAM
        try:
            # Training's dropout must not depend on how often, or how far, evaluations ran.
            with torch.random.fork_rng(devices=[]):
                result = self.evaluation(seed=seed, stopped=stopped)
        except EvaluationStopped:
            return None
        except RuntimeError:  # an episode failed for good: what was learned is not lost with it
            self._save_last()
            raise
        if result.clips:
            save_grid(self.folder / f"video_{self.step}.mp4", result.clips)
        return result.figures()

    def _keep(self, figures: dict[str, float]) -> None:
        """Keep the agent as `best` if none was better."""
        name = self.setup.world.headline
        if figures[name] >= self.best:
            self.best = figures[name]
            self._save(self.folder / "best.safetensors")
        low, high = figures[f"{name}_low"], figures[f"{name}_high"]
        tell(f"update {self.step}: {name} {figures[name]:.2f} [{low:.2f}, {high:.2f}]")

    def _write(self, path: Path, sums: Sums) -> None:
        self.setup.agent.calibrate(self.buffer)
        # torch's own generator is what dropout draws from.
        state = {"torch": torch.get_rng_state(), "sums": sums, "source": self.source.state_dict()}
        extra = {"best": self.best, "evaluated": self.evaluated, "logged": self.logged}
        save_checkpoint(path, self.config, self.setup, self.step, state, extra)

    def _restore(self) -> None:
        checkpoint = load_checkpoint(self.last)
        restore_agent(self.setup, checkpoint, self.config.allow_changed_data)
        state = checkpoint.state["trainer"]
        self.step = checkpoint.step
        self.best, self.evaluated = checkpoint.extra["best"], checkpoint.extra["evaluated"]
        self.logged = checkpoint.extra.get("logged", {})  # older checkpoints have none
        self.source.load_state_dict(state.get("source", {}))  # older checkpoints have none
        torch.set_rng_state(state["torch"])
        device = self.setup.normaliser.mean.device
        self.totals = {name: total.to(device) for name, total in state["sums"].items()}
