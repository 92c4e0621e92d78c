"""The same seed gives the same bits, whatever the number of processes."""

from pathlib import Path

from tests.conftest import TINY
from tests.faults.kills import CUBES, PIECES, RHYTHM, content, must, run_result
from tests.faults.report import Tally

WORKERS = (1, 2, 4)


def collections(place: Path) -> list[Tally]:
    """States of cubes, and images of pieces."""
    tallies = []
    for name, world, section in (
        ("states of cubes", CUBES, "manipobj"),
        ("images of pieces", (*PIECES, "obs=rgb"), "pushtetris"),
    ):
        tally, expected = Tally(f"collection, {name}, by {WORKERS} workers"), None
        for workers in WORKERS:
            own = ("dataset_name=tiny", "num_collect_episodes=5", f"num_workers={workers}")
            folder = place / f"{section}-{workers}"
            mode = f"env_kwargs.{section}.mode=data_collection"
            must(["collect.py", *world, mode, *own, f"data_dir={folder}"])
            found = content(folder / "tiny")
            expected = expected or found
            tally.expect(found == expected, f"{workers} workers make other data")
        tallies.append(tally)
    return tallies


def trainings(place: Path) -> Tally:
    """One or two processes for the updates, 1, 2 and 4 for evaluations, threads, and the switch."""
    tally, expected = Tally("training with evaluations, by 1 or 2 and 1, 2 or 4 processes"), None
    settings = [(f"num_workers={n}",) for n in WORKERS]
    settings += [("parallel_update=always", "num_workers=2"), ("deterministic=true",)]
    for number, own in enumerate(settings):
        folder = place / f"train-{number}"
        data = (f"data_dir={place / 'manipobj-1'}", f"output_dir={folder}", "run_name=run")
        must(["train.py", *TINY, *RHYTHM, "agent=sgiql", *data, *own])
        found = run_result(folder / "train" / "run", ("last", "best"), ("train", "eval"))
        expected = expected or found
        tally.expect(found == expected, f"{own} trains another agent")
    return tally


def evaluations(place: Path) -> Tally:
    """`evaluate.py` of one checkpoint."""
    tally, expected = Tally(f"evaluation, by {WORKERS} workers"), None
    for workers in WORKERS:
        folder = place / f"eval-{workers}"
        run = f"eval_checkpoint={place / 'train-0' / 'train' / 'run'}"
        own = (f"num_workers={workers}", "num_eval_episodes=5", "save_video=false")
        must(["evaluate.py", run, *own, f"output_dir={folder}"])
        (rows,) = folder.glob("eval/*/episodes.csv")
        found = rows.read_bytes()
        expected = expected or found
        tally.expect(found == expected, f"{workers} workers find other results")
    return tally


def run_all(place: Path) -> list[Tally]:
    """Everything of this kind."""
    return [*collections(place), trainings(place), evaluations(place)]
