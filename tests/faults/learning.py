"""Learning gone wrong, made on purpose: it is told of, with what to look at."""

import contextlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from common.data.buffer import Buffer
from common.data.goals import GoalLaw, GoalShares
from common.foundation.messages import keeping_warnings
from common.training.diagnosis import Watch, reward_problems, value_problems
from common.training.offline import Trainer
from tests.faults.report import Tally, ending
from visual_encoders.dlp.training import DLPTraining
from visual_encoders.training import EncoderTrainer
from visual_encoders.vqvae.training import VQVAETraining

SHARES = GoalShares(0.0, 1.0, 0.0, False)
GAMMAS = (0.5, 0.95, 0.99)


def buffer(current: float) -> Buffer:
    """Random rows; `current` is the share of goals that are the next state, with reward 0."""
    shares = GoalShares(current, 1 - current, 0.0, False)
    obs, lengths = torch.randn(3000, 2), torch.full((3,), 1000)
    law = GoalLaw(shares, SHARES, gamma=0.99)
    constant = None if current else lambda rows, goals: -torch.ones(len(rows["x"]))
    return Buffer(obs, obs, lengths, {"x": obs}, constant, goals=law, done_signal=False)


def judge(
    tally: Tally, found: Mapping[str, str], name: str, wrong: bool, advice: str = "look at"
) -> None:
    """Count what was found: a problem of this name with advice if something is wrong, or none."""
    good = advice in found.get(name, "") if wrong else not found
    tally.expect(good, f"{name}: {found}", "told" if wrong else "harmless")


def values() -> Tally:
    """Estimates within and outside of what is possible, for several discounts."""
    tally = Tally("value estimates outside of [-1/(1-gamma), 0]")
    for lowest in (-1 / (1 - gamma) for gamma in GAMMAS):
        for name in ("value/mean", "critic/mean", "policy/q"):
            for share in (-0.5, -0.11, 1.11, 2.0, -0.05, 0.0, 0.5, 1.0, 1.05):
                found = value_problems({name: share * lowest}, (lowest, 0.0), 1)
                judge(tally, found, name, not -0.1 <= share <= 1.1)
    return tally


def flat_values() -> Tally:
    """A V that is the same everywhere, which is normal in the first updates only."""
    tally = Tally("value estimates that tell no states apart")
    for lowest in (-1 / (1 - gamma) for gamma in GAMMAS):
        for spread, step, wrong in ((1e-3, 5000, True), (1e-3, 500, False), (0.1, 5000, False)):
            found = value_problems({"value/std": -spread * lowest}, (lowest, 0.0), step)
            judge(tally, found, "value/std", wrong, advice="lower lr")
    return tally


def rewards() -> Tally:
    """Rewards that are all the same."""
    tally = Tally("rewards that are all one value")
    for seed in range(5):
        draws = torch.Generator().manual_seed(seed)
        judge(tally, reward_problems(buffer(0.0), draws), "reward", True)
        judge(tally, reward_problems(buffer(0.2), draws), "reward", False)
    return tally


def collapses() -> Tally:
    """Particles and codebooks that nothing uses."""
    tally = Tally("particles or a codebook that collapse")
    dlp = SimpleNamespace(settings=SimpleNamespace(n_kp_enc=24))
    vqvae = SimpleNamespace(network=SimpleNamespace(settings=SimpleNamespace(n_embed=2048)))
    for active in (0.0, 0.4, 0.6, 5.0):
        judge(tally, DLPTraining.problems(dlp, {"active": active}), "particles", active < 0.5)
    for perplexity in (1.0, 8.0, 11.0, 900.0):
        figures = {"perplexity": perplexity, "codes_used": 30}
        judge(tally, VQVAETraining.problems(vqvae, figures), "codebook", perplexity < 10)
    return tally


def told_once(place: Path) -> Tally:
    """A problem is told of when it appears, again when it comes back, and kept in a file."""
    tally = Tally("a problem that lasts, goes and comes back")
    place.mkdir(parents=True, exist_ok=True)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), keeping_warnings(place):
        watch = Watch()
        for step, problems in enumerate(({"a": "x"}, {"a": "x"}, {}, {"a": "x", "b": "y"})):
            watch.report(step, problems)
    lines = (place / "warnings.txt").read_text().splitlines()
    expected = ["update 0: x", "update 3: x", "update 3: y"]
    shown = [f"warning: {line}" for line in expected]
    tally.expect(lines == expected and said.getvalue().splitlines() == shown, f"{lines}", "told")
    return tally


def broken_numbers() -> Tally:
    """Losses, gradients and weights that are not finite: named, and never stored."""
    tally = Tally("losses, gradients or weights that are not finite")

    def refuse(name: str, action: Callable[[], object]) -> None:
        end, text = ending(action)
        named = end == "told" and text.startswith(name) and "look at" in text
        tally.expect(named, text or f"{name} passed", "told")

    for name in ("value/loss", "critic/grad_norm", "policy/q"):
        for value in (float("nan"), float("inf")):
            trainer = _stopped_at_seven(Trainer)
            sums = {name: torch.tensor(value), "ok": torch.ones(())}
            trainer.rhythm = SimpleNamespace(log=10)
            trainer.updates = SimpleNamespace(sums=lambda sums=sums: sums)
            refuse(name, trainer._finite_sums)
    trainer = _stopped_at_seven(EncoderTrainer)
    weights = {"w": torch.tensor([1.0, float("nan")])}
    trainer.model = SimpleNamespace(network=SimpleNamespace(state_dict=lambda: weights))
    refuse("w", lambda: trainer._write(trainer.last, {}))
    return tally


def _stopped_at_seven(kind: type) -> Any:
    """A run without anything but its place, in a folder that does not exist."""
    trainer = kind.__new__(kind)
    trainer.step, trainer.folder = 7, Path("no such folder")
    return trainer


def run_all(place: Path) -> list[Tally]:
    return [values(), flat_values(), rewards(), collapses(), told_once(place), broken_numbers()]
