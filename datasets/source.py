"""Interface of datasets, however they are stored: their episodes in order."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.foundation.errors import UserError

SPLITS = ("train", "val")


class EpisodeId(NamedTuple):
    """One episode of a dataset."""

    split: str
    index: int

    def __str__(self) -> str:
        return f"{self.split} episode {self.index}"


class EpisodeSource(ABC):
    """Recorded episodes, read one after another; at most one is in memory at a time.

    `div` keeps the first 1/`div` of the episodes: whole ones, at least one. `str()` says where the
    data lie.
    """

    header: dict[str, Any]  # keys: see `datasets.store.Dataset`

    @property
    @abstractmethod
    def place(self) -> Path:
        """Path without suffix, with which the paths of derived data begin."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Values, ready for JSON, that differ from those of other data, wherever they lie."""

    @abstractmethod
    def digest(self, columns: Sequence[str], split: str = "train", div: int = 1) -> str:
        """SHA-256 of these columns of the episodes, by the checksums that their files hold.

        Cheap, as hardly any rows are read. Other data have another one; equal data may have, if
        they are stored otherwise.
        """

    @abstractmethod
    def lengths(self, split: str = "train", div: int = 1) -> np.ndarray:
        """Rows of each episode, (E,) int64, without reading the data."""

    @abstractmethod
    def locate(self, split: str, index: int) -> str:
        """Where an episode lies, for messages."""

    @abstractmethod
    def stream(
        self, columns: Sequence[str], split: str = "train", div: int = 1
    ) -> Iterator[dict[str, np.ndarray]]:
        """The episodes in order: column -> (T, ...). Raises UserError for a damaged file."""

    @abstractmethod
    def read_episode(
        self, split: str, index: int, columns: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Columns (all by default) of one episode, each (T, ...)."""

    @contextmanager
    def reader(self, column: str, split: str = "train") -> Iterator[Callable[[int], np.ndarray]]:
        """A function that reads a column (T, ...) of an episode; it is asked in ascending order."""
        yield lambda index: self.read_episode(split, index, [column])[column]

    @abstractmethod
    def problems(self) -> Iterator[str]:
        """Read everything; gives a line, naming file and split, for each damaged part."""

    def column(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape of a row and type of a column. Raises UserError if there is none of that name."""
        columns = self.header["columns"]
        if name not in columns:
            hint = "; collect with obs=rgb to store images" if name == "observations" else ""
            raise UserError(
                f"dataset {self} has no column {name} (it has {', '.join(columns)}){hint}"
            )
        return tuple(columns[name]["shape"]), np.dtype(columns[name]["dtype"])

    def load(
        self, columns: Sequence[str], split: str = "train", div: int = 1
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Read whole columns.

        Returns the columns, each a contiguous (R, ...) array of the header's type with the episodes
        one after another, and the episodes' lengths (E,) int64, which sum to R.
        """
        lengths = self.lengths(split, div)
        if not len(lengths):
            raise UserError(f"dataset {self} has no {split} episodes")
        arrays = {}
        for name in columns:
            shape, dtype = self.column(name)
            arrays[name] = np.empty((int(lengths.sum()), *shape), dtype)
        start = 0
        for episode, length in zip(self.stream(columns, split, div), lengths, strict=True):
            for name, column in episode.items():
                arrays[name][start : start + length] = column
            start += length
        return arrays, lengths


def first_part(count: int, div: int) -> int:
    """Number of the first 1/`div` of `count` episodes: at least one, if there is any."""
    return min(count, max(1, count // div))
