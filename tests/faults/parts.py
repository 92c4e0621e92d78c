"""The parts of the experiments, and how much of each is done."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common.foundation.processes import available_cores
from tests.faults import (
    damage,
    determinism,
    disk,
    hostile,
    kills,
    learning,
    matrix,
    misuse,
    races,
    report,
    soak,
    workers,
)
from tests.faults.report import Part, Tally


@dataclass(frozen=True)
class Scale:
    """Numbers of tries.

    Attributes:
        kills: of each command. jobs: commands that are killed at once; 0 = one per core.
        flips: of each kind of file. examples: of random settings. commands: wrong command lines.
        episodes: whether the matrix runs real episodes.
        troubles: of workers. rooms: sizes of full disks. writes: of two writers at once.
        updates: of the long training. resets: of environments.
    """

    kills: int
    jobs: int
    flips: int
    examples: int
    commands: int
    episodes: bool
    troubles: tuple[str, ...]
    rooms: int
    writes: int
    updates: int
    resets: int


SCALES = {
    "quick": Scale(2, 0, 50, 100, 3, False, ("raise",), 3, 20, 300, 30),
    "full": Scale(100, 0, 1000, 2000, 60, True, workers.TROUBLES, 40, 1000, 20_000, 2000),
}


def kill_part(what: str, jobs: Callable, scale: Scale, place: Path) -> Part:
    """Commands are killed side by side: most of the time each of them keeps one core busy.

    Each takes long, so its tally is kept at once, and a part that was stopped goes on from there.
    """
    kept = report.ROOT / report.RESULTS / f"kills-{what}-{scale.kills}"

    def kill(number: int, job: kills.Job) -> Tally:
        if (path := kept / f"{number}.json").exists():
            return report.load(path).tallies[0]
        tally = kills.run(job, scale.kills, place / f"job-{number}")
        print(tally.fault, f"{tally.tried} times", tally.note, sep=", ", flush=True)
        report.save(Part(job.name, [tally], about=report.machine()), path)
        return tally

    earlier = sorted({report.load(path).about for path in kept.glob("*.json")})
    with ThreadPoolExecutor(scale.jobs or available_cores()) as pool:
        tallies = list(pool.map(kill, *zip(*enumerate(jobs(place)), strict=True)))
    shutil.rmtree(kept)
    below = (
        f"Continued after a stop; what was killed before: {'; '.join(earlier)}." if earlier else ""
    )
    return Part(f"Killed at a random moment: {what}", tallies, below)


def matrix_part(scale: Scale, place: Path) -> Part:
    tally, reasons = matrix.run(matrix.make_encoders(place), scale.episodes)
    return Part("What fits together", [tally], below=matrix.listing(reasons))


def part(
    title: str, tallies: Callable[[Scale, Path], list[Tally]]
) -> Callable[[Scale, Path], Part]:
    """A part of tallies alone."""
    return lambda scale, place: Part(title, tallies(scale, place))


PARTS: dict[str, Callable[[Scale, Path], Part]] = {
    "kills-data": partial(kill_part, "making data", kills.data_jobs),
    "kills-agents": partial(kill_part, "agents", kills.agent_jobs),
    "kills-encoders": partial(kill_part, "encoders", kills.encoder_jobs),
    "workers": part("Workers that fail", lambda s, place: workers.run_all(place, s.troubles)),
    "disk": part("Disks that refuse", lambda s, place: disk.run_all(place, s.rooms)),
    "damage": part("Damaged files", lambda s, place: damage.run_all(place, s.flips)),
    "hostile": part("Hostile files", lambda _, place: hostile.run_all(place)),
    "misuse": part("Misuse", lambda s, _: misuse.run_all(s.examples, s.commands)),
    "matrix": matrix_part,
    "races": part("Two at once", lambda s, place: races.run_all(place, s.writes, s.rooms)),
    "soak": part("Long runs", lambda s, place: soak.run_all(place, s.updates, s.resets)),
    "determinism": part("The same bits", lambda _, place: determinism.run_all(place)),
    "learning": part("Learning gone wrong", lambda _, place: learning.run_all(place)),
}
