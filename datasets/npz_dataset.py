"""Datasets that others recorded: `NAME.npz`, and `NAME-val.npz` beside it, read where they lie.

This is how the reference stores data. The rows of all episodes follow each other in one array per
column; where an episode ends, `datasets.ends` says, and `terminals` are read as just that. Only the
columns asked for are unpacked.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from common.foundation.errors import UserError
from common.foundation.messages import tell, warn
from common.foundation.progress import Bar
from datasets.ends import episode_lengths
from datasets.npz import ColumnReader, NpzFile
from datasets.source import SPLITS, EpisodeSource, first_part
from datasets.store import Dataset
from envs.base import World

SAMPLE_ROWS = 16  # by which a world recognises its data
ENDS = "terminals"


class NpzDataset(EpisodeSource):
    """An npz file, with its validation file if there is one, as a dataset of `world`.

    `header` has the keys that `World.recognise` gives, episodes, rows and max_episode_steps (the
    longest episode), and source: the name and the columns' checksums of each file, and ends, the
    columns that tell the ends of episodes if more than `terminals` does. Members that are neither
    this world's nor have a row for each action are left out, with a warning. Raises UserError if a
    file is missing, damaged, not of this world, or ends within an episode.
    """

    def __init__(self, path: str | Path, world: World) -> None:
        self.path = Path(path)
        validation = validation_file(self.path)
        self._files = {"train": self.path} | ({"val": validation} if validation.is_file() else {})
        self._lengths: dict[str, np.ndarray] = {}
        headers, source = [], {}
        for split, file in self._files.items():
            header, self._lengths[split], source[split] = _examine(file, world)
            headers.append(header)
        if headers[0]["columns"] != headers[-1]["columns"]:
            raise UserError(f"{file} has other columns than {path}; move one of them away")
        self.header = headers[0] | {
            "max_episode_steps": max(int(lengths.max()) for lengths in self._lengths.values()),
            "episodes": {split: len(self.lengths(split)) for split in SPLITS},
            "rows": {split: int(self.lengths(split).sum()) for split in SPLITS},
            "source": source,
        }

    def __str__(self) -> str:
        return str(self.path)

    @property
    def place(self) -> Path:
        return self.path.with_suffix("")

    @property
    def identity(self) -> dict[str, Any]:
        # Checksums alone: what else is in the header may be of the settings of this command.
        return {split: source["crc32"] for split, source in self.header["source"].items()}

    def digest(self, columns: Sequence[str], split: str = "train", div: int = 1) -> str:
        crc = self.header["source"].get(split, {}).get("crc32", {})
        parts = {name: crc.get(name) for name in columns}
        known = {"crc32": parts, "lengths": self.lengths(split, div).tolist()}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def lengths(self, split: str = "train", div: int = 1) -> np.ndarray:
        lengths = self._lengths.get(split, np.zeros(0, np.int64))
        return lengths[: first_part(len(lengths), div)]

    def locate(self, split: str, index: int) -> str:
        row = int(self._lengths[split][:index].sum())
        return f"{self._files[split]}, episode {index} (from row {row} on)"

    def stream(
        self, columns: Sequence[str], split: str = "train", div: int = 1
    ) -> Iterator[dict[str, np.ndarray]]:
        types = {name: self.column(name)[1] for name in columns}
        lengths = self.lengths(split, div)
        if not len(lengths):
            return
        if len(lengths) < len(self._lengths[split]):
            tell(
                f"{self._files[split]}: checksums are of whole columns, so a part of them goes "
                "unchecked; `python -m datasets.inspect NAME --verify` reads everything"
            )
        with NpzFile(self._files[split]) as file, ExitStack() as stack:
            readers = {name: stack.enter_context(_open(file, name)) for name in types}
            for length in Bar(lengths, f"reading {file.path.name}", delay=2, unit="ep"):
                yield {name: _cast(readers[name].read(length), types[name]) for name in types}

    @contextmanager
    def reader(self, column: str, split: str = "train") -> Iterator[Callable[[int], np.ndarray]]:
        """As in `EpisodeSource`; the episodes in between are unpacked, one at a time."""
        dtype, following = self.column(column)[1], enumerate(self._lengths[split])
        with NpzFile(self._files[split]) as file, _open(file, column) as rows:

            def read(index: int) -> np.ndarray:
                for number, length in following:
                    episode = rows.read(length)
                    if number == index:
                        return _cast(episode, dtype)
                raise ValueError(f"episode {index} lies behind, or there is none")

            yield read

    def read_episode(
        self, split: str, index: int, columns: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """As in `EpisodeSource`; unpacks those before it."""
        names = list(self.header["columns"]) if columns is None else columns
        return next(islice(self.stream(names, split), index, None))

    def problems(self) -> Iterator[str]:
        for split in self._files:
            for name in self.header["columns"]:
                try:
                    for _ in self.stream([name], split):
                        pass
                except UserError as error:
                    yield f"{split}: {error}"


class _LastRows:
    """Reads, an episode at a time, what marks its last row."""

    def read(self, rows: int) -> np.ndarray:
        return np.arange(rows) == rows - 1


def _open(file: NpzFile, column: str) -> AbstractContextManager[ColumnReader | _LastRows]:
    return nullcontext(_LastRows()) if column == ENDS else file.open(column)


def _examine(path: Path, world: World) -> tuple[dict[str, Any], np.ndarray, dict[str, Any]]:
    """The header that the world gives a file, the episodes' lengths, and its entry of `source`."""
    with NpzFile(path) as file:
        rows = _count_rows(file, world)
        lengths, told_by = episode_lengths(file, rows)
        names = [name for name, column in file.columns.items() if column.shape[0] == rows]
        _warn_of_others(file, {*names, *told_by}, rows)
        sample = {name: file.read(name, SAMPLE_ROWS) for name in names}
        if told_by:
            sample[ENDS] = np.zeros(min(rows, SAMPLE_ROWS), bool)
        try:
            header = world.recognise(sample)
        except UserError as error:
            raise UserError(f"{path} does not fit: {error}") from error
        checksums = {name: column.member.CRC for name, column in file.columns.items()}
    ends = {} if told_by == [ENDS] else {"ends": told_by}
    return header, lengths, {"file": path.name, "crc32": checksums} | ends


def _count_rows(file: NpzFile, world: World) -> int:
    """Rows of `actions`, and of all columns that the world knows.

    Raises UserError if one of them has others, or is no column.
    """
    known = world.dataset_columns(pixels=True).keys() & {*file.columns, *file.left_out}
    rows = {name: file.column(name).shape[0] for name in sorted(known | {"actions"})}
    if len(set(rows.values())) > 1 or not min(rows.values()):
        raise UserError(f"{file.path}: its columns have {rows} rows; they need the same, not 0")
    return rows["actions"]


def _warn_of_others(file: NpzFile, used: set[str], rows: int) -> None:
    """Say which members are no columns with a row for each action."""
    reasons = file.left_out | {
        name: f"it has {column.shape[0]} rows, not {rows}" for name, column in file.columns.items()
    }
    others = [f"{name} ({reason})" for name, reason in reasons.items() if name not in used]
    if others:
        warn(f"{file.path}: left out: {', '.join(others)}")


def open_dataset(
    data_dir: str | Path, name: str, world: World, overrides: Sequence[str] = ()
) -> EpisodeSource:
    """Open the dataset `name` under `data_dir`: its folder, or else the file `name`.npz.

    `overrides` are settings of `collect.py`, besides the world's, for the message that it is
    missing. If there is neither, the file may lie where such data of the `world` are usually put.
    Raises UserError if nothing is found, or if it is incomplete or damaged.
    """
    folders = [Path(data_dir), *(Path(folder).expanduser() for folder in world.data_folders)]
    if not (folders[0] / name).is_dir():
        for folder in folders:
            if is_npz(folder, name):
                return NpzDataset(folder / f"{name}.npz", world)
        download = world.download_command()
        if download:
            places = " or ".join(map(str, folders))
            raise UserError(f"no file {name}.npz in {places}; get OGBench's with `{download}`")
    return Dataset.open(data_dir, name, [*world.collect_overrides(), *overrides])


def is_npz(data_dir: str | Path, name: str) -> bool:
    """True where the dataset `name` is a file; a folder of that name goes before it."""
    return (Path(data_dir) / f"{name}.npz").is_file() and not (Path(data_dir) / name).is_dir()


def validation_file(path: Path) -> Path:
    """The file of the validation episodes that belongs to a file of training episodes."""
    return path.with_name(f"{path.stem}-val.npz")


def _cast(rows: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return rows != 0 if dtype.kind == "b" else rows.astype(dtype, copy=False)
