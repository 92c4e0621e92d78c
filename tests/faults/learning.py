"""Learning gone wrong, made on purpose: it is told of, with what to look at."""

import contextlib
import io
from pathlib import Path
from typing import Any

import torch

from common.data.buffer import Buffer
from common.data.goals import GoalLaw, GoalShares
from common.foundation.errors import UserError
from common.training.diagnosis import Watch, reward_problems, value_problems
from common.training.offline import Trainer
from tests.faults.report import Tally
from visual_encoders.dlp.training import DLPTraining
from visual_encoders.training import EncoderTrainer
from visual_encoders.vqvae.training import VQVAETraining

SHARES = GoalShares(0.0, 1.0, 0.0, False)


def buffer(current: float) -> Buffer:
    """Random rows; `current` is the share of goals that are the next state, with reward 0."""
    shares = GoalShares(current, 1 - current, 0.0, False)
    obs, lengths = torch.randn(3000, 2), torch.full((3,), 1000)
    law = GoalLaw(shares, SHARES, gamma=0.99)
    constant = None if current else lambda rows, goals: -torch.ones(len(rows["x"]))
    return Buffer(obs, obs, lengths, {"x": obs}, constant, goals=law, done_signal=False)


def values() -> Tally:
    """Estimates within and outside of what is possible, for several discounts."""
    tally = Tally("value estimates outside of [-1/(1-gamma), 0]")
    for gamma in (0.5, 0.95, 0.99):
        lowest = -1 / (1 - gamma)
        for name in ("value/mean", "critic/mean", "policy/q"):
            for share in (-0.5, -0.11, 1.11, 2.0):
                found = value_problems({name: share * lowest}, (lowest, 0.0), 1)
                tally.expect(name in found and "look at" in found[name], f"{found}", "told")
            for share in (-0.05, 0.0, 0.5, 1.0, 1.05):
                found = value_problems({name: share * lowest}, (lowest, 0.0), 1)
                tally.expect(not found, f"a false alarm: {found}")
    return tally


def flat_values() -> Tally:
    """A V that is the same everywhere, which is normal in the first updates only."""
    tally = Tally("value estimates that tell no states apart")
    for gamma in (0.5, 0.95, 0.99):
        lowest = -1 / (1 - gamma)
        for spread, step, wrong in ((1e-3, 5000, True), (1e-3, 500, False), (0.1, 5000, False)):
            found = value_problems({"value/std": -spread * lowest}, (lowest, 0.0), step)
            tally.expect(bool(found) == wrong, f"{found}", "told" if wrong else "harmless")
    return tally


def rewards() -> Tally:
    """Rewards that are all the same."""
    tally = Tally("rewards that are all one value")
    for seed in range(5):
        draws = torch.Generator().manual_seed(seed)
        found = reward_problems(buffer(0.0), draws)
        tally.expect("look at" in found.get("reward", ""), f"{found}", "told")
        tally.expect(not reward_problems(buffer(0.2), draws), "a false alarm")
    return tally


class _Sizes:
    """The columns that the encoders' own judgement reads."""

    def __init__(self, **entries: object) -> None:
        self.__dict__.update(entries)


def collapses() -> Tally:
    """Particles and codebooks that nothing uses."""
    tally = Tally("particles or a codebook that collapse")
    dlp = _Sizes(settings=_Sizes(n_kp_enc=24))
    vqvae = _Sizes(network=_Sizes(settings=_Sizes(n_embed=2048)))
    for active in (0.0, 0.4, 0.6, 5.0):
        found = DLPTraining.problems(dlp, {"active": active})
        tally.expect(bool(found) == (active < 0.5), f"{active}: {found}", _kind(found))
    for perplexity in (1.0, 8.0, 11.0, 900.0):
        figures = {"perplexity": perplexity, "codes_used": 30}
        found = VQVAETraining.problems(vqvae, figures)
        tally.expect(bool(found) == (perplexity < 10), f"{perplexity}: {found}", _kind(found))
    return tally


def _kind(found: dict) -> str:
    return "told" if found else "harmless"


def told_once(place: Path) -> Tally:
    """A problem is told of when it appears, again when it comes back, and kept in a file."""
    tally = Tally("a problem that lasts, goes and comes back")
    place.mkdir(parents=True, exist_ok=True)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        watch = Watch(place)
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
    for name in ("value/loss", "critic/grad_norm", "policy/q"):
        for value in (float("nan"), float("inf")):
            updates = _Sizes(
                sums=lambda n=name, v=value: {n: torch.tensor(v), "ok": torch.ones(())}
            )
            trainer = _stopped_at_seven(Trainer)
            trainer.rhythm, trainer.updates = _Sizes(log=10), updates
            tally.add(*_refusal(trainer._finite_sums, name))
    trainer = _stopped_at_seven(EncoderTrainer)
    weights = {"w": torch.tensor([1.0, float("nan")])}
    trainer.model = _Sizes(network=_Sizes(state_dict=lambda: weights))
    tally.add(*_refusal(lambda: trainer._write(trainer.last, {}), "w"))
    return tally


def _stopped_at_seven(kind: type) -> Any:
    """A run without anything but its place, in a folder that does not exist."""
    trainer = kind.__new__(kind)
    trainer.step, trainer.folder = 7, Path("no such folder")
    return trainer


def _refusal(action, name: str) -> tuple[str, str]:
    try:
        action()
    except UserError as error:
        named = str(error).startswith(name) and "look at" in str(error)
        return ("told" if named else "lost"), str(error)
    return "lost", f"{name} passed"


def run_all(place: Path) -> list[Tally]:
    """Everything of this kind."""
    return [values(), flat_values(), rewards(), collapses(), told_once(place), broken_numbers()]
