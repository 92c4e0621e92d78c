"""Datasets on disk: a readable header and one HDF5 file per episode.

    <data_dir>/<name>/header.json            what the data are and how they were made
    <data_dir>/<name>/train/000000.h5 ...    training episodes
    <data_dir>/<name>/val/000000.h5 ...      validation episodes

An episode is the unit of commit: it is written under a temporary name and renamed when whole, so
the files present are the state of a collection and nothing else has to be kept in step with them.
Each file holds one array per column, all of T rows. Row t is what was seen before action t:

    row              0     1    ...   T-1
    observations    o_0   o_1   ...  o_{T-1}     o_T is not stored, so the last action has no
    actions         a_0   a_1   ...  a_{T-1}     successor: T rows are T - 1 transitions
    terminals        0     0    ...    1

Every chunk carries a checksum (fletcher32), and the file format checks its own structure, so a
damaged file is noticed when it is read.
"""

import hashlib
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from common.foundation.errors import UserError
from common.foundation.files import read_json
from common.foundation.progress import Bar
from datasets.npz import LARGEST_RATIO
from datasets.source import SPLITS, EpisodeSource, first_part

FORMAT = "hecrl-dataset"
FORMAT_VERSION = 1
HEADER = "header.json"
MOST_EPISODES = 10**7  # that a header may speak of
CHUNK_ROWS = 50  # rows of one chunk at most ...
CHUNK_BYTES = 2**20  # ... and its bytes: a reader of a few frames should not unpack hundreds

Columns = Mapping[str, tuple[tuple[int, ...], Any]]  # name -> (shape of one row, dtype)


def header_start(folder: Path) -> dict[str, Any]:
    """The entries by which a header is known as one, of the dataset in `folder`."""
    return {"format": FORMAT, "format_version": FORMAT_VERSION, "name": folder.name}


def describe_columns(columns: Columns) -> dict[str, dict[str, Any]]:
    """The entry `columns` of a header."""
    return {
        name: {"shape": list(shape), "dtype": np.dtype(dtype).name}
        for name, (shape, dtype) in columns.items()
    }


def episode_path(folder: Path, split: str, index: int) -> Path:
    """File of episode `index` of `split` in the dataset `folder`."""
    return folder / split / f"{index:06d}.h5"


@dataclass(frozen=True)
class Dataset(EpisodeSource):
    """A dataset folder and its header; reads whole episodes.

    `header` keys: format, format_version, name; command (that made it); environment, settings,
    multiview, max_episode_steps, versions (`World.describe`); pixels; columns (name -> shape of a
    row, dtype); qpos_layout; episodes (split -> number wanted); complete; rows (split -> number)
    once complete. Of own collections also seed and collection (settings of the scripted policies),
    of one of its parts also part (`datasets.shards`), of merged ones shards (`datasets.merge`), of
    imported ones source (`datasets.npz_dataset`).
    """

    folder: Path
    header: dict[str, Any]

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def place(self) -> Path:
        return self.folder

    @property
    def identity(self) -> dict[str, Any]:
        return {key: value for key, value in self.header.items() if key not in ("name", "command")}

    @classmethod
    def open(cls, data_dir: str | Path, name: str, overrides: Sequence[str] = ()) -> "Dataset":
        """Open the finished dataset `name` under `data_dir`.

        `overrides` are the settings of `collect.py` the caller knows of; they complete the command
        in the message. Raises UserError if the dataset is missing, incomplete or of a newer format.
        """
        folder = Path(data_dir) / name
        if not (folder / HEADER).exists():
            known = [*overrides, f"dataset_name={name}"]
            if Path(data_dir) != Path("datasets/data"):
                known.append(f"data_dir={data_dir}")
            raise UserError(
                f"no dataset {name} under {data_dir}; make it with "
                f"`python collect.py {shlex.join(known)}`"
            )
        dataset = cls(folder, read_header(folder))
        if any(dataset.missing(split) for split in SPLITS):
            raise UserError(
                f"dataset {folder} is incomplete: it has {dataset.progress()}; "
                f"`{dataset.header['command']}` continues it"
            )
        return dataset

    def episodes(self, split: str) -> list[int]:
        """Indices of the episodes on disk, ascending."""
        wanted = range(self.header["episodes"][split])
        stored = (path.stem for path in (self.folder / split).glob("[0-9]*.h5"))
        return sorted(int(stem) for stem in stored if stem.isdigit() and int(stem) in wanted)

    def missing(self, split: str) -> list[int]:
        """Indices of the episodes that are not collected yet, ascending."""
        stored = set(self.episodes(split))
        return [index for index in range(self.header["episodes"][split]) if index not in stored]

    def progress(self) -> str:
        """Count for messages: "12 of 110 episodes"."""
        have = sum(len(self.episodes(split)) for split in SPLITS)
        return f"{have} of {sum(self.header['episodes'].values())} episodes"

    def digest(self, columns: Sequence[str], split: str = "train", div: int = 1) -> str:
        digest = hashlib.sha256()
        for index in self._chosen(split, div):
            with self._open_episode(split, index, columns) as stored:
                for name in sorted(stored):
                    digest.update(f"{name} {len(stored[name])} ".encode())
                    digest.update(_checksums(stored[name]))
        return digest.hexdigest()

    def lengths(self, split: str = "train", div: int = 1) -> np.ndarray:
        rows = []
        for index in self._chosen(split, div):
            with self._open_episode(split, index, ["terminals"]) as stored:
                rows.append(len(stored["terminals"]))
        return np.array(rows, np.int64)

    def locate(self, split: str, index: int) -> str:
        return str(episode_path(self.folder, split, index))

    def stream(
        self, columns: Sequence[str], split: str = "train", div: int = 1
    ) -> Iterator[dict[str, np.ndarray]]:
        chosen = self._chosen(split, div)
        for index in Bar(chosen, f"reading {self.folder.name}", delay=2, unit="ep"):
            yield self.read_episode(split, index, columns)

    def problems(self) -> Iterator[str]:
        parts = [(split, index) for split in SPLITS for index in self.episodes(split)]
        for split, index in Bar(parts, f"reading {self.folder.name}", delay=2, unit="ep"):
            try:
                self.read_episode(split, index)
            except UserError as error:
                yield f"{split} episode {index}: {error}"

    def read_episode(
        self, split: str, index: int, columns: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        names = self.header["columns"] if columns is None else columns
        with self._open_episode(split, index, names) as stored:
            return {name: column[()] for name, column in stored.items()}

    def read_rows(self, split: str, index: int, column: str, rows: np.ndarray) -> np.ndarray:
        """Some rows (n, ...) of one column of an episode; `rows` ascend, without repetition."""
        with self._open_episode(split, index, [column]) as stored:
            return stored[column][rows]

    def _chosen(self, split: str, div: int) -> list[int]:
        indices = self.episodes(split)
        return indices[: first_part(len(indices), div)]

    @contextmanager
    def _open_episode(
        self, split: str, index: int, columns: Sequence[str]
    ) -> Iterator[dict[str, h5py.Dataset]]:
        """The stored columns of an episode; damage becomes a UserError."""
        expected = {name: self.column(name) for name in columns}
        path = episode_path(self.folder, split, index)
        try:
            with h5py.File(path, "r", locking=False) as file:
                stored = {name: _own_column(file, name) for name in columns}
                lengths = {len(column) for column in stored.values()}
                if any((s.shape[1:], s.dtype) != expected[n] for n, s in stored.items()):
                    raise ValueError("its columns are not those of the header")
                if len(lengths) != 1 or not 0 < max(lengths) <= self.header["max_episode_steps"]:
                    raise ValueError(f"its columns have {sorted(lengths)} rows")
                yield stored
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{path} is damaged ({error}); delete it and make that episode again with "
                f"`{self.header['command']}`"
            ) from error


def _own_column(file: h5py.File, name: str) -> h5py.Dataset:
    """A column that lies in the file itself; ValueError for what only seems to.

    HDF5 files can point to other files, and promise rows that they do not hold.
    """
    if "/" in name or not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"column {name} is missing, or a link to elsewhere")
    column = file[name]
    if not isinstance(column, h5py.Dataset) or column.is_virtual or column.external:
        raise ValueError(f"column {name} has its rows elsewhere")
    if column.nbytes > LARGEST_RATIO * column.id.get_storage_size():
        raise ValueError(f"column {name} promises {column.nbytes} bytes, which it cannot hold")
    return column


def _checksums(column: h5py.Dataset) -> bytes:
    """Those that end the chunks of a column; all of its rows, if it has none."""
    filters = column.id.get_create_plist()
    last = filters.get_nfilters() - 1
    if last < 0 or filters.get_filter(last)[0] != h5py.h5z.FILTER_FLETCHER32:
        return column[()].tobytes()
    chunks: list[h5py.h5d.StoreInfo] = []
    column.id.chunk_iter(chunks.append)
    file = column.file.id.get_vfd_handle()
    return b"".join(os.pread(file, 4, c.byte_offset + c.size - 4) for c in chunks)


def read_header(folder: Path) -> dict[str, Any]:
    """The header of the dataset in `folder`. Raises UserError if it is not one this code reads."""
    path = folder / HEADER
    header = read_json(path)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise UserError(f"{path} is not the header of a dataset")
    try:
        if header["format_version"] > FORMAT_VERSION:
            raise UserError(
                f"{path} has format version {header['format_version']}, this code reads up to "
                f"{FORMAT_VERSION}; update the code or collect again"
            )
        _check_header(header)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}); get it again, or collect again"
        ) from error
    return header


def _check_header(header: dict[str, Any]) -> None:
    """Raise an error of any kind for a header with impossible entries."""
    kinds = {"command": str, "environment": str, "multiview": bool}
    kinds |= dict.fromkeys(("settings", "columns", "episodes"), dict)
    for name, kind in kinds.items():
        if not isinstance(header[name], kind):
            raise TypeError(f"{name} is {header[name]!s:.50}")
    counts = [header["max_episode_steps"], *(header["episodes"][split] for split in SPLITS)]
    if not all(isinstance(count, int) and 0 <= count <= MOST_EPISODES for count in counts):
        raise ValueError(f"impossible numbers of episodes or steps: {counts}")
    for name, column in header["columns"].items():
        sizes = [int(size) for size in column["shape"]]
        if np.dtype(column["dtype"]).kind not in "biuf" or min(sizes, default=0) < 0:
            raise ValueError(f"column {name} cannot be {column}")
