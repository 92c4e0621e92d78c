"""Content of a dataset: header, columns, and figures of its episodes.

    python -m datasets.inspect NAME                  print it
    python -m datasets.inspect NAME --verify         read everything, list what is damaged
    python -m datasets.inspect NAME --video EPISODE  draw an episode's stored states

For a file NAME.npz instead of a folder, add the settings of config.yaml that say what it holds,
such as `task=manipobj-v0 env_kwargs.manipobj.num_cubes=3`. Images are read by --verify alone.
"""

import math
import sys
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.foundation.errors import UserError, one_line_errors
from common.foundation.files import check_path
from common.foundation.video import save_video, tile
from common.settings.config import compose
from common.settings.schema import show
from datasets.actions import check_actions, find_misfit, recorded_actions
from datasets.command_line import make_parser, world_of
from datasets.npz_dataset import is_npz, open_dataset
from datasets.source import SPLITS, EpisodeSource
from datasets.store import Dataset
from envs.base import World
from envs.make import make_world

BATCH_ROWS = 50_000  # that a world makes statistics of at a time


@dataclass
class Range:
    """Range, mean and deviation of all numbers of a column, whatever its shape."""

    low: float = math.inf
    high: float = -math.inf
    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, values: np.ndarray) -> None:
        values = values.astype(np.float64)
        self.low, self.high = min(self.low, values.min()), max(self.high, values.max())
        self.count += values.size
        self.total += values.sum()
        self.squares += np.square(values).sum()

    @property
    def mean(self) -> float:
        return self.total / self.count

    @property
    def std(self) -> float:
        return math.sqrt(max(0.0, self.squares / self.count - self.mean**2))


def open_any(
    data_dir: str | Path, name: str, settings: Sequence[str]
) -> tuple[EpisodeSource, World]:
    """A dataset and the world it is of; `settings` say which that is for an npz file."""
    if is_npz(data_dir, name):
        world = make_world(compose(settings))
        dataset = open_dataset(data_dir, name, world)
    else:
        dataset = Dataset.open(data_dir, name)
        world = world_of(dataset.header)
    return dataset, world.adopt(dataset.header)


def report(dataset: EpisodeSource, world: World, split: str) -> Iterator[str]:
    """Lines on the content of a dataset; figures are of one split."""
    lengths = {s: dataset.lengths(s) for s in SPLITS}
    counts = [f"{len(n)} {s} episodes, {n.sum()} rows" for s, n in lengths.items()]
    yield f"{dataset}: {'; '.join(counts)}"
    yield from header_lines(dataset.header)
    ranges, figures = summarise(dataset, world, split)
    yield f"columns ({split})"
    yield from column_lines(dataset.header, ranges)
    if misfit := find_misfit(recorded_actions(dataset), world.actions):
        yield f"  {misfit.text}"
    yield f"episodes ({split})"
    yield from (f"  {name:42}{value:9.4f}" for name, value in figures.items())


def problems(dataset: EpisodeSource, world: World) -> Iterator[str]:
    """Lines on what is damaged or, if nothing is, on actions that are not on the world's scale."""
    damaged = False
    for line in dataset.problems():
        damaged = True
        yield line
    if not damaged:
        try:
            check_actions(recorded_actions(dataset), world.actions, str(dataset), clip=False)
        except UserError as error:
            yield str(error)


def header_lines(header: dict[str, Any], path: str = "") -> Iterator[str]:
    """Keys and values, the nested ones with dotted keys; not the columns, which get a table."""
    for key, value in header.items():
        if isinstance(value, list) and any(isinstance(part, dict) for part in value):
            value = {str(i): part for i, part in enumerate(value)}
        if isinstance(value, dict) and key != "columns":
            yield from header_lines(value, f"{path}{key}.")
        elif not isinstance(value, dict):
            yield f"  {path + key:42}{show(value)}"


def column_lines(header: dict[str, Any], ranges: dict[str, Range]) -> Iterator[str]:
    """The columns as a table."""
    yield f"  {'column':22}{'row':>14}{'type':>10}{'min':>11}{'max':>11}{'mean':>11}{'std':>11}"
    for name, column in header["columns"].items():
        shape = "x".join(map(str, column["shape"])) or "1"
        line = f"  {name:22}{shape:>14}{column['dtype']:>10}"
        found = ranges.get(name)
        numbers = (found.low, found.high, found.mean, found.std) if found else ()
        yield line + ("".join(f"{n:11.4g}" for n in numbers) or "  (not read)")


def narrow(dataset: EpisodeSource) -> list[str]:
    """Columns of numbers and vectors; images and masks have more axes, and are left unread."""
    return [name for name in dataset.header["columns"] if len(dataset.column(name)[0]) <= 1]


def summarise(
    dataset: EpisodeSource, world: World, split: str
) -> tuple[dict[str, Range], dict[str, float]]:
    """Ranges of the narrow columns, and the world's statistics: means over batches, by rows."""
    ranges: dict[str, Range] = defaultdict(Range)
    figures: dict[str, float] = defaultdict(float)
    rows = 0
    for columns, lengths in _batches(dataset, split):
        for name, column in columns.items():
            ranges[name].add(column)
        for name, value in world.statistics(columns, lengths).items():
            figures[name] += value * int(lengths.sum())
        rows += int(lengths.sum())
    return ranges, {name: total / rows for name, total in figures.items()}


def _batches(
    dataset: EpisodeSource, split: str
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """The narrow columns, some whole episodes at a time, with the episodes' lengths."""
    held: list[dict[str, np.ndarray]] = []
    lengths: list[int] = []
    for episode in dataset.stream(narrow(dataset), split):
        held.append(episode)
        lengths.append(len(episode["terminals"]))
        if sum(lengths) >= BATCH_ROWS:
            yield _joined(held), np.array(lengths)
            held, lengths = [], []
    if held:
        yield _joined(held), np.array(lengths)


def _joined(episodes: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([e[name] for e in episodes]) for name in episodes[0]}


def film(dataset: EpisodeSource, world: World, split: str, episode: int, file: Path) -> None:
    """Write a video of an episode's stored states. Nothing is simulated.

    Raises UserError if there is no such episode, or its states cannot be drawn.
    """
    count = len(dataset.lengths(split))
    if not 0 <= episode < count:
        raise UserError(f"{dataset} has {count} {split} episodes, from 0 on; {episode} is not one")
    columns = dataset.read_episode(split, episode, narrow(dataset))
    env = world.make()
    try:
        env.reset(seed=0)
        save_video(file, _frames(env, world, columns))
    finally:
        env.close()


def _frames(env: Any, world: World, columns: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
    for t in range(len(columns["terminals"])):
        row = {name: column[t] for name, column in columns.items()}
        yield tile(world.replay(env, row), f"row {t}")


def _parser() -> ArgumentParser:
    parser = make_parser("datasets.inspect", __doc__)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="for a file NAME.npz")
    parser.add_argument("--split", choices=SPLITS, default="train", help="of figures and videos")
    parser.add_argument("--verify", action="store_true", help="read everything; exit code 1 if bad")
    parser.add_argument("--video", type=int, metavar="EPISODE", help="draw this episode")
    parser.add_argument("--out", type=Path, metavar="FILE", help="of the video; NAME_EPISODE.mp4")
    return parser


def main(arguments: list[str]) -> None:
    options = _parser().parse_intermixed_args(arguments)
    with one_line_errors():
        dataset, world = open_any(options.data_dir, options.name, options.settings)
        if options.verify:
            found = list(problems(dataset, world))
            print(*found or [f"{dataset}: everything can be read"], sep="\n")
            raise SystemExit(1 if found else 0)
        if options.video is not None:
            file = options.out or Path(f"{options.name}_{options.video}.mp4")
            check_path(file.with_name(f".{file.name}.tmp"), "--out")
            film(dataset, world, options.split, options.video, file)
            print(file)
        else:
            print(*report(dataset, world, options.split), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
