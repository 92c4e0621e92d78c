"""Ranges and statistics of a dataset, in one pass over its narrow columns."""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets.source import EpisodeSource
from envs.base import World

BATCH_ROWS = 50_000  # that a world makes statistics of at a time


@dataclass
class Range:
    """What a column's numbers are like: all of them together, whatever its shape."""

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


def column_lines(header: dict[str, Any], ranges: dict[str, Range]) -> Iterator[str]:
    """The columns as a table."""
    yield f"  {'column':22}{'row':>14}{'type':>10}{'min':>11}{'max':>11}{'mean':>11}{'std':>11}"
    for name, column in header["columns"].items():
        shape = "x".join(map(str, column["shape"])) or "1"
        line = f"  {name:22}{shape:>14}{column['dtype']:>10}"
        found = ranges.get(name)
        numbers = (found.low, found.high, found.mean, found.std) if found else ()
        yield line + ("".join(f"{n:11.4g}" for n in numbers) or "  (not read)")
