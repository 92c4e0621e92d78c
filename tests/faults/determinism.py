"""The same seed gives the same bits, whatever the number of processes."""

from pathlib import Path
from typing import Any

from tests.faults import commands
from tests.faults.report import Tally

WORKERS = (1, 2, 4)


def collections(place: Path, name: str, data: str, overrides: tuple[str, ...]) -> Tally:
    """Collections of one world, in the folders `data`-1, `data`-2 and so on."""
    found = {}
    for workers in WORKERS:
        folder = place / f"{data}-{workers}"
        commands.must(commands.collecting(folder, "tiny", 5, *overrides, f"num_workers={workers}"))
        found[f"{workers} workers make other data"] = commands.content(folder / "tiny")
    return same(f"collection, {name}, by {WORKERS} workers", found)


def trainings(place: Path) -> Tally:
    """One or two processes for the updates, 1, 2 and 4 for evaluations, threads, and the switch."""
    settings = [(f"num_workers={n}",) for n in WORKERS]
    settings += [("parallel_update=always", "num_workers=2"), ("deterministic=true",)]
    found = {}
    for number, own in enumerate(settings):
        folder = place / f"train-{number}"
        commands.must(commands.training(place / "cubes-1", folder, "agent=sgiql", *own))
        found[f"{own} trains another agent"] = commands.run_content(folder / "train" / "run")
    return same("training with evaluations, by 1 or 2 and 1, 2 or 4 processes", found)


def evaluations(place: Path) -> Tally:
    """`evaluate.py` of one checkpoint."""
    found = {}
    for workers in WORKERS:
        folder = place / f"eval-{workers}"
        commands.must(commands.evaluating(place / "train-0" / "train" / "run", folder, 5, workers))
        (rows,) = folder.glob("eval/*/episodes.csv")
        found[f"{workers} workers find other results"] = rows.read_bytes()
    return same(f"evaluation, by {WORKERS} workers", found)


def same(fault: str, found: dict[str, Any]) -> Tally:
    """Compare all results, by their complaints, with the first."""
    tally, (expected, *_) = Tally(fault), found.values()
    for complaint, result in found.items():
        tally.expect(result == expected, complaint)
    return tally


def run_all(place: Path) -> list[Tally]:
    return [
        collections(place, "states of cubes", "cubes", commands.CUBE_STATES),
        collections(place, "images of pieces", "pieces", commands.PIECE_IMAGES),
        trainings(place),
        evaluations(place),
    ]
