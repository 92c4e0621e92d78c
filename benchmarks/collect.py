"""Environment steps per second of collection, and its peak memory against the dataset's size.

    python -m benchmarks.collect
    python -m benchmarks.collect --worlds Scene --kinds state --workers 1 2

Scripted policies act and episodes are written to a temporary folder, as `collect.py` does it.
Starting processes, imports and compiling models are left out: time runs from the workers' first
report. `image` is one camera of 128 x 128 pixels, `image, fast` with `render_quality=fast`.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, Table, arguments, largest_peak, note_peak, publish
from benchmarks.subjects import WORLDS, has_qualities, make_benchmark_world
from common.foundation.errors import one_line_errors
from common.foundation.jobs import run_jobs
from common.settings.config import compose
from datasets.collection import EpisodeRecipe
from datasets.shards import Part
from datasets.source import EpisodeId

KINDS = ("state", "image", "image, fast")


@dataclass(frozen=True)
class NotingRecipe(EpisodeRecipe):
    """Records as collection does, and notes the process's memory after each episode."""

    def run(self, env: Any, episode: EpisodeId) -> Iterator[int]:
        yield from super().run(env, episode)
        note_peak(self.folder)


def collected(
    title: str, kind: str, workers: int, episodes: int, steps: int
) -> tuple[float, float]:
    """Steps per second of all workers together, and MiB of the largest."""
    world = make_benchmark_world(title, steps, collects=True, fast=kind == "image, fast")
    settings = compose(["env_kwargs.manipobj.num_cubes=1"]).collect
    reports: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for split in ("train", "val"):
            (place / split).mkdir()
        part = Part({"train": episodes * workers, "val": 0}, 0, 1)
        recipe = NotingRecipe(place, world, settings, 0, kind != "state", part)
        jobs = [EpisodeId("train", index) for index in part.range("train")]
        run_jobs([recipe] * workers, jobs, lambda n: reports.append((time.perf_counter(), n)))
        peak = largest_peak(place)
    # The first report of each worker is of its start; what follows was done since then.
    seconds = reports[-1][0] - reports[workers - 1][0]
    return sum(n for _, n in reports[workers:]) / max(seconds, 1e-9), peak


def measure(options: argparse.Namespace) -> list[Table]:
    speed = Table("Environment steps per second of collection")
    for title in options.worlds:
        for kind in options.kinds:
            if kind == "image, fast" and not has_qualities(title):
                continue
            state = kind == "state"
            steps = options.steps if state else options.image_steps
            for workers in options.workers:
                rate, peak = collected(title, kind, workers, options.episodes, steps)
                speed.rows.append(_row(title, kind, workers, rate, peak))
    memory = Table("Peak memory of a collecting process against the dataset's size")
    for episodes in options.sizes:
        _, peak = collected(options.worlds[0], "state", 1, episodes, options.steps)
        memory.rows.append({"rows": episodes * options.steps, "MiB": peak})
    return [speed, memory]


def _row(title: str, kind: str, workers: int, rate: float, peak: float) -> Row:
    return {
        "environment": title,
        "data": kind,
        "workers": workers,
        "steps/s": rate,
        "per worker": rate / workers,
        "MiB": peak,
    }


def main() -> None:
    options = arguments(
        __doc__,
        worlds={"nargs": "+", "choices": tuple(WORLDS), "default": list(WORLDS)},
        kinds={"nargs": "+", "choices": KINDS, "default": list(KINDS)},
        workers={"type": int, "nargs": "+", "default": [1, 2]},
        episodes={"type": int, "default": 2, "help": "of each worker"},
        steps={"type": int, "default": 400, "help": "of an episode"},
        image_steps={"type": int, "default": 20, "help": "of an episode with images"},
        sizes={"type": int, "nargs": "+", "default": [1, 4, 12], "help": "episodes, for memory"},
    )
    publish("collect", options, measure(options))


if __name__ == "__main__":
    with one_line_errors():
        main()
