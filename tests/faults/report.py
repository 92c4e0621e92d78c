"""Outcomes of each fault, counted, and the table that docs/reliability.md is made of."""

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

import torch

from common.foundation.errors import UserError
from common.foundation.files import read_json, write_json
from common.runs.folders import git_state

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path("output/faults")  # of the project's folder
LONGEST = 1000  # characters of a line that can still be read
SHOWN = 3  # losses that are described, of each fault


@dataclass
class Tally:
    """Tries of one fault, and their ends.

    Attributes:
        fault: what was done. tried: how often.
        told: ended with a clear message that names what is wrong, and lost nothing else.
        harmless: made no difference to any result.
        lost: a line for each time that was neither.
        note: what else was seen.
    """

    fault: str
    tried: int = 0
    told: int = 0
    harmless: int = 0
    lost: list[str] = field(default_factory=list)
    note: str = ""

    def add(self, outcome: str, detail: str = "") -> None:
        """Count one try: "told", "harmless", or "lost" with what was lost."""
        self.tried += 1
        if outcome == "lost":
            self.lost.append(" ".join(detail.split())[:300])
        else:
            setattr(self, outcome, getattr(self, outcome) + 1)

    def expect(self, good: bool, detail: str, outcome: str = "harmless") -> None:
        """Count one try that should end as `outcome`."""
        self.add(outcome if good else "lost", detail)


def ending(action: Callable[[], object]) -> tuple[str, str]:
    """End of an action: "harmless", "told" in one line, or "lost"; and the message."""
    try:
        action()
    except UserError as error:
        text = str(error)
        clear = text.isprintable() and 0 < len(text) < LONGEST
        return ("told" if clear else "lost"), text
    except Exception as error:  # exactly what must not happen
        return "lost", f"{type(error).__name__}: {error}"
    return "harmless", ""


@dataclass
class Part:
    """One part of the experiments: its tallies, and text that goes below its table."""

    title: str
    tallies: list[Tally] = field(default_factory=list)
    below: str = ""
    about: str = ""  # scale, time, machine and code of this part

    @property
    def lost(self) -> list[str]:
        return [f"{tally.fault}: {line}" for tally in self.tallies for line in tally.lost]


def machine() -> str:
    """Code, versions and system that a part ran with."""
    git = git_state(ROOT, ignored="docs/reliability.md")
    commit = git["commit"][:7] + "-dirty" * git["dirty"] if git else "no checkout"
    return (
        f"commit {commit}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"{platform.system()}, {date.today()}"
    )


def save(part: Part, path: Path) -> None:
    """Keep a part until the table is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(part))


def load(path: Path) -> Part:
    """A part that `save` wrote."""
    content = read_json(path)
    content["tallies"] = [Tally(**tally) for tally in content["tallies"]]
    return Part(**content)


def table(tallies: Iterable[Tally]) -> list[str]:
    """One line of Markdown for each fault."""
    lines = ["| fault | tried | reported | no difference | lost |"]
    lines += ["|---|---|---|---|---|"]
    for tally in tallies:
        note = f" ({tally.note})" if tally.note else ""
        counts = f"{tally.tried} | {tally.told} | {tally.harmless} | {len(tally.lost)}"
        lines.append(f"| {tally.fault}{note} | {counts} |")
    return lines


def document(parts: Sequence[Part]) -> str:
    """The whole of docs/reliability.md."""
    tallies = [tally for part in parts for tally in part.tallies]
    tried, lost = sum(tally.tried for tally in tallies), sum(len(t.lost) for t in tallies)
    lines = [
        "# What survives what",
        "",
        "Written by `python -m tests.faults` from what it saw; nothing here was entered by hand. "
        f"{tried} faults were tried, {lost} lost something.",
        "",
        "*Reported*: the command ended, or warned, with one line that names what is wrong "
        "and what to do, and what was there before is intact. *No difference*: the results are "
        "those of an undisturbed run, bit for bit. *Lost*: neither.",
    ]
    for part in parts:
        lines += ["", f"## {part.title}", "", *table(part.tallies)]
        for tally in part.tallies:
            lines += [f"- lost: {tally.fault}: {line}" for line in tally.lost[:SHOWN]]
        lines += ["", part.below] if part.below else []
        lines += ["", f"*{part.about}*"]
    return "\n".join(lines) + "\n"
