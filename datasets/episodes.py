"""Episode files: written in chunks with checksums, through to the disk."""

import io
import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import h5py
import numpy as np

from common.foundation.errors import UserError
from datasets.store import CHUNK_BYTES, CHUNK_ROWS, Columns


class EpisodeWriter:
    """Writes one episode row by row; a context manager that commits on success only.

    `facts` are arrays of at most 64 KiB in all that are not of its steps.

    Holds at most one chunk of rows per column in memory, whatever the length of the episode.
    Leaving the block renames the file to `path`; leaving it by an exception removes it.
    """

    def __init__(
        self, path: Path, columns: Columns, facts: Mapping[str, np.ndarray] = MappingProxyType({})
    ) -> None:
        self.path = path
        # The process id keeps a dying worker of a killed collection apart from its successor.
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._disk = _Disk(self._partial)
        self._file = h5py.File(self._disk, "w", libver=("v110", "v110"), locking=False)
        self._columns = {
            name: _ColumnWriter(self._file, name, shape, np.dtype(dtype))
            for name, (shape, dtype) in columns.items()
        }
        self._file.attrs.update(facts)
        self.rows = 0

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row: a value for every column.

        Raises ValueError or TypeError if one misfits, UserError if the disk refuses.
        """
        if row.keys() != self._columns.keys():
            raise ValueError(f"a row has {sorted(row)}, the columns are {sorted(self._columns)}")
        for name, value in row.items():
            self._columns[name].append(np.asarray(value))
        self._disk.check()
        self.rows += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with ExitStack() as cleanup:  # removes the partial file when the commit fails as well
            cleanup.callback(self._partial.unlink, missing_ok=True)
            cleanup.callback(self._disk.close)
            cleanup.callback(self._file.close)
            if kind is None:
                self._commit()

    def _commit(self) -> None:
        if self.rows == 0:
            raise ValueError(f"{self.path}: an episode without rows")
        for column in self._columns.values():
            column.flush()
        self._file.close()
        self._disk.commit(self.path)


class _ColumnWriter:
    """One growing array of an episode file, written a whole chunk at a time."""

    def __init__(self, file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        row_bytes = dtype.itemsize * math.prod(shape)
        rows = min(max(CHUNK_BYTES // max(row_bytes, 1), 1), CHUNK_ROWS)
        # Frames and masks shrink many times; state rows are small, and noise does not compress.
        is_image = dtype == np.uint8 and len(shape) >= 2
        packing = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
        self._dataset = file.create_dataset(
            name,
            shape=(0, *shape),
            maxshape=(None, *shape),
            chunks=(rows, *shape),
            dtype=dtype,
            fletcher32=True,
            **(packing if is_image else {}),
        )
        self._name = name
        self._buffer = np.empty((rows, *shape), dtype)
        self._filled = 0

    def append(self, value: np.ndarray) -> None:
        expected = self._buffer.shape[1:]
        if value.shape != expected:
            raise ValueError(f"column {self._name}: a row has shape {value.shape}, not {expected}")
        np.copyto(self._buffer[self._filled : self._filled + 1], value[None], casting="same_kind")
        self._filled += 1
        if self._filled == len(self._buffer):
            self.flush()

    def flush(self) -> None:
        rows = self._buffer[: self._filled]
        if rows.dtype.kind == "f" and not np.isfinite(rows).all():
            raise ValueError(f"column {self._name}: a value is not finite")
        start = len(self._dataset)
        self._dataset.resize(start + self._filled, axis=0)
        if self._filled:
            self._dataset[start:] = rows
        self._filled = 0


class _Disk(io.FileIO):
    """A new file, written without buffers, for h5py, which cannot bear errors of it.

    So `write` and `truncate` keep them for `check`. Raises UserError if it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._error: OSError | None = None
        try:
            super().__init__(path, "w+")
        except OSError as error:
            raise self._reported(error) from error

    def write(self, content: memoryview) -> int:
        left = memoryview(content)
        try:
            while left and not self._error:
                left = left[super().write(left) :]  # less than all, if the disk is about full
        except OSError as error:
            self._error = error
        return len(content)

    def truncate(self, size: int) -> None:
        try:
            super().truncate(size)
        except OSError as error:
            self._error = self._error or error

    def check(self) -> None:
        """Raise UserError if anything could not be written."""
        if self._error:
            raise self._reported(self._error) from self._error

    def commit(self, path: Path) -> None:
        """Close the file and rename it to `path` once all of it is on the disk."""
        try:
            self.check()
            os.fsync(self.fileno())
            self.close()
            os.replace(self._path, path)
        except OSError as error:
            raise self._reported(error) from error

    def _reported(self, error: OSError) -> UserError:
        return UserError(f"cannot write {self._path}: {error.strerror or error}")
