"""Latents on disk: what a frozen encoder makes of a dataset's training episodes.

    <dataset>-dlp-<hash>/header.json     dataset, encoder, views: what the hash is of; shapes
    <dataset>-dlp-<hash>/latents.npy     (R, *shape) float32, the episodes one after another
    <dataset>-dlp-<hash>/episodes.npy    (E,) uint64, a mark for each episode, 0 = not encoded yet

An episode is the unit of commit: its rows are written to their place and synced, then its mark,
which holds their checksum. So any number of processes write at once, each its own episodes, and
whatever ends them, the marks say what is there. Other data, another encoder or another number of
particles make another hash, and so another folder.

Letters: E episodes, R rows of all of them, T of one, *shape of a row's latents.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from common.foundation.errors import UserError
from common.foundation.files import atomic_write, check_path, read_json, write_json
from common.foundation.messages import tell
from common.foundation.progress import Bar
from datasets.filling import difference
from datasets.npz import DAMAGE
from datasets.source import EpisodeSource
from visual_encoders.frozen import FrozenEncoder
from visual_encoders.images import COLUMN

FORMAT, FORMAT_VERSION = "hecrl-latents", 1
HEADER, LATENTS, MARKS = "header.json", "latents.npy", "episodes.npy"
TYPE, MARK_TYPE = np.dtype("<f4"), np.dtype("<u8")
ENCODED = 1 << 32  # added to a checksum, so that no mark of an encoded episode is 0


@dataclass(frozen=True)
class LatentStore:
    """The latents of one dataset by one encoder.

    Attributes:
        folder: where they lie. header: keys format, format_version, dataset, encoder (kind, sha256
            of its files, particles if it has such), views, images (digest of those that were
            encoded; latents of earlier versions lack it), shape of a row, episodes, rows.
        lengths: rows of each episode (E,).
    """

    folder: Path
    header: dict[str, Any]
    lengths: np.ndarray

    @classmethod
    def of(cls, dataset: EpisodeSource, encoder: FrozenEncoder, views: int) -> "LatentStore":
        """The store for a dataset and an encoder, whether there are files yet or not."""
        lengths, kind = dataset.lengths(), encoder.choice.kind
        identity = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "dataset": _digest(dataset.identity),
            "encoder": {"kind": kind, "sha256": encoder.fingerprint, **encoder.setup},
            "views": views,
        }
        folder = dataset.place.with_name(f"{dataset.place.name}-{kind}-{_digest(identity)[:12]}")
        check_path(folder, f"the name of dataset {dataset}")
        size = {"episodes": len(lengths), "rows": int(lengths.sum())}
        size |= {"images": dataset.digest([COLUMN]), "shape": list(encoder.shape(views))}
        return cls(folder, identity | size, lengths)

    def missing(self, count: int) -> list[int]:
        """Indices of those of the first `count` episodes that are not encoded yet, ascending."""
        if not (self.folder / HEADER).exists() or not self._has_files():
            return list(range(count))
        return np.flatnonzero(self._marks()[:count] == 0).tolist()

    def digest(self, count: int) -> str:
        """SHA-256 of the checksums of the first `count` episodes' latents."""
        return hashlib.sha256(self._marks()[:count].tobytes()).hexdigest()

    def progress(self, count: int) -> str:
        """Count of what there is, for messages: "12 of 110 episodes"."""
        return f"{count - len(self.missing(count))} of {count} episodes"

    def prepare(self) -> None:
        """Make the files that are not there; the caller holds the folder's lock.

        Raises `UserError` if the folder holds something else, is damaged, or the disk is too small.
        """
        if not (self.folder / HEADER).exists():
            write_json(self.folder / HEADER, self.header, sealed=True)
        self._check_header()
        if not self._has_files():  # marks first: none may be of rows that are gone
            self._check_disk()
            _make_array(self.folder / MARKS, MARK_TYPE, self.lengths.shape)
            _make_array(self.folder / LATENTS, TYPE, self._shape)
        self._map(LATENTS, TYPE, self._shape)

    @contextlib.contextmanager
    def write(self) -> Iterator["LatentWriter"]:
        """A writer of episodes; several processes may have one each."""
        with open(self.folder / LATENTS, "r+b") as rows, open(self.folder / MARKS, "r+b") as marks:
            yield LatentWriter(self.lengths, _Rows(rows), _Rows(marks))

    def read(self, count: int) -> np.ndarray:
        """The latents of the first `count` episodes, which must be encoded: (R', *shape), mapped.

        The array is read-only. Raises `UserError` for other latents than the header
        promises and for damaged ones.
        """
        self._check_header()
        latents, marks = self._map(LATENTS, TYPE, self._shape), self._marks()
        parts = np.split(latents[: self.lengths[:count].sum()], self.lengths[: count - 1].cumsum())
        for index, part in enumerate(Bar(parts, f"checking {self.folder.name}", delay=2)):
            if marks[index] != _mark(part):
                reason = f"episode {index} has another checksum than {MARKS} says"
                raise self._damaged(LATENTS, reason)
        return latents[: self.lengths[:count].sum()]

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self.header["rows"], *self.header["shape"])

    def _has_files(self) -> bool:
        return all((self.folder / name).exists() for name in (LATENTS, MARKS))

    def _marks(self) -> np.ndarray:
        return self._map(MARKS, MARK_TYPE, self.lengths.shape)

    def _map(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """An array file, to read; `UserError` if it is not what it should be."""
        try:
            array = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        except DAMAGE as error:
            raise self._damaged(name, " ".join(str(error).split())[:100]) from error
        if array.shape != shape or array.dtype != dtype:
            raise self._damaged(name, f"it holds {array.shape} {array.dtype}, not {shape} {dtype}")
        return array

    def _check_disk(self) -> None:
        needed, free = TYPE.itemsize * math.prod(self._shape), shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(
                f"{self.folder} will take {needed / 2**30:.1f} GiB and the disk has "
                f"{free / 2**30:.1f} GiB free; make room, or move the data to a larger disk"
            )

    def _damaged(self, name: str, reason: str) -> UserError:
        return UserError(
            f"{self.folder / name} is damaged ({reason}); delete the folder {self.folder} and run "
            "the same command again"
        )

    def _check_header(self) -> None:
        stored = read_json(self.folder / HEADER)
        stored = stored if isinstance(stored, dict) else {}
        absent = {"images"} - stored.keys()
        found = difference(stored, self.header, absent)
        if found:
            key, have, want = found
            raise UserError(
                f"{self.folder / HEADER} is of other latents ({key}={have!s:.20}, not "
                f"{want!s:.20}); move the folder away and run the same command again"
            )
        if absent and os.access(self.folder, os.W_OK):
            tell(f"{self.folder}: images not recorded so far, from now on those of its dataset")
            write_json(self.folder / HEADER, self.header, sealed=True)


class LatentWriter:
    """Writes episodes to their places, in any order. Raises `UserError` where the disk refuses."""

    def __init__(self, lengths: np.ndarray, latents: "_Rows", marks: "_Rows") -> None:
        self._first = np.cumsum(lengths) - lengths  # row of each episode
        self._latents, self._marks = latents, marks

    def write(self, index: int, latents: np.ndarray) -> None:
        """Store the latents (T, *shape) of episode `index` and, once they are safe, its mark."""
        latents = np.ascontiguousarray(latents, TYPE)
        self._latents.write(int(self._first[index]), latents)
        self._marks.write(index, np.array([_mark(latents)], MARK_TYPE))


class _Rows:
    """An array file that takes rows. Not through a map: a full disk would kill the process."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        npy.read_magic(file)
        npy.read_array_header_1_0(file)
        self._begin = file.tell()

    def write(self, first: int, rows: np.ndarray) -> None:
        """Put rows at and after number `first`, down to the disk."""
        try:
            self._file.seek(self._begin + first * rows[0].nbytes)
            self._file.write(rows.data)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"cannot write {self._file.name}: {reason}") from error


def _make_array(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Write an array file of zeros, which takes no room on the disk until rows are written."""
    description = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with atomic_write(path) as file:
        npy.write_array_header_1_0(file, description)
        file.truncate(file.tell() + dtype.itemsize * math.prod(shape))


def _mark(latents: np.ndarray) -> int:
    return ENCODED + zlib.crc32(latents)


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
