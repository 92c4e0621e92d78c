"""Columns of npz files, read and written as streams: no column is ever held whole.

An npz file is a zip archive with one npy member per column: a small header (shape, dtype) and the
rows, one after another. Members are unpacked only as far as they are read. Files come from
elsewhere and are not trusted: nothing is unpickled, nothing is extracted to a path, and a member
must have room for the rows that its header promises. A whole member that is no column, such as a
text or a single number, is in nobody's way: what it is, is said to who asks for it.
"""

import contextlib
import math
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.lib import format as npy

from common.foundation.errors import UserError

BLOCK_BYTES = 2**20  # of one read from a member
LARGEST_RATIO = 1032  # bytes that deflate can make of one
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
DAMAGE = (
    *(OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, OverflowError),
    *(SyntaxError, MemoryError, struct.error, tokenize.TokenError, zlib.error, zipfile.BadZipFile),
)

Shapes = Mapping[str, tuple[tuple[int, ...], Any]]  # column -> (shape, all rows included; dtype)


@dataclass(frozen=True)
class Column:
    """One array of an npz file: its shape (R, ...), its type, and where its rows begin."""

    member: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int  # bytes of the npy header
    by_columns: bool = False  # Fortran's order: only the whole can be turned into rows

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.shape[1:]

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.row_shape)


class NoColumn(Exception):
    """Reason why a member that is not damaged cannot be read as a column."""


class NpzFile:
    """The columns of an npz file; a context manager.

    Attributes:
        columns: the plain arrays of numbers. left_out: other members -> why they are no columns.

    Raises UserError if the file is damaged, or if a member points elsewhere or has no room for the
    rows it promises; the message names file and member.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with reported(str(path)):
            self._archive = zipfile.ZipFile(path)
            self._bytes = self.path.stat().st_size
        self.columns: dict[str, Column] = {}
        self.left_out: dict[str, str] = {}
        try:
            for member in self._archive.infolist():
                self._add(member)
        except UserError:
            self.close()
            raise

    def _add(self, member: zipfile.ZipInfo) -> None:
        name = member.filename.removesuffix(".npy")
        with reported(f"{self.path}, member {member.filename!r}"):
            if name in self.columns or name in self.left_out:
                raise ValueError("this column occurs twice")
            if name.startswith("/") or ".." in name.split("/"):
                raise ValueError("this is not a column: NAME.npy is expected")
            try:
                self.columns[name] = self._read_header(member)
            except NoColumn as reason:
                self.left_out[name] = str(reason)

    def _read_header(self, member: zipfile.ZipInfo) -> Column:
        if not re.fullmatch(r"[A-Za-z_]\w*\.npy", member.filename):
            raise NoColumn("this is not a column: NAME.npy is expected, of letters, digits and _")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise NoColumn("it is compressed in a way that numpy does not use")
        with self._archive.open(member) as stream:
            version = npy.read_magic(stream)
            if version not in HEADERS:
                raise NoColumn(f"npy version {version} is not for plain arrays")
            shape, by_columns, dtype = HEADERS[version](stream)
            column = Column(member, shape, dtype, stream.tell(), by_columns)
        if dtype.kind not in "biuf":
            raise NoColumn(f"it holds {dtype}, not numbers; nothing is unpickled")
        if not shape:
            raise NoColumn("a single number does not lie there row by row")
        if min(shape) < 0:
            raise ValueError(f"an array of shape {shape} does not lie there row by row")
        promised = column.offset + shape[0] * column.row_bytes
        if promised != member.file_size or promised > LARGEST_RATIO * self._room(member):
            raise ValueError(f"its header promises shape {shape} of {dtype}, which it cannot hold")
        return column

    def _room(self, member: zipfile.ZipInfo) -> int:
        """Bytes that the member can have in the file, whatever the archive says of it."""
        return min(member.compress_size, self._bytes - member.header_offset)

    def column(self, name: str) -> Column:
        """The column `name`. Raises UserError, with what is in the way, if it cannot be read."""
        if name in self.left_out:
            raise UserError(f"{self.path}, column {name}: {self.left_out[name]}")
        if name not in self.columns:
            there = ", ".join((*self.columns, *self.left_out))
            raise UserError(f"{self.path} has no column {name} (it has {there})")
        return self.columns[name]

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator["ColumnReader"]:
        """A reader at the first row of column `name`. Several may be open at once."""
        column = self.column(name)
        with contextlib.ExitStack() as stack:
            with reported(f"{self.path}, column {name}"):
                reader = ColumnReader(self.path, name, self._archive, column)
            stack.callback(reader.close)
            yield reader

    def read(self, name: str, rows: int | None = None) -> np.ndarray:
        """The first `rows` rows of a column (all by default), of its stored type."""
        with self.open(name) as reader:
            return reader.read(len(reader) if rows is None else min(rows, len(reader)))

    def close(self) -> None:
        self._archive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ColumnReader:
    """Reads a column from its first row on; made by `NpzFile.open`. Its length is that in rows."""

    def __init__(self, path: Path, name: str, archive: zipfile.ZipFile, column: Column) -> None:
        self._where = f"{path}, column {name}"
        self._column = column
        self._stream = archive.open(column.member)
        self._stream.read(column.offset)
        self._turned: np.ndarray | None = None  # the rows to come, of Fortran's order

    def __len__(self) -> int:
        return self._column.shape[0]

    def read(self, rows: int) -> np.ndarray:
        """The next `rows` rows (rows, ...), of the stored type.

        Raises UserError if the file is damaged; the checksum is compared at the last row. In
        Fortran's order, the first call takes memory for the whole column.
        """
        if not self._column.by_columns:
            return self._fill((rows, *self._column.row_shape))
        if self._turned is None:
            self._turned = self._fill(self._column.shape[::-1]).T
        part, self._turned = self._turned[:rows], self._turned[rows:]
        if len(part) < rows:
            raise UserError(f"{self._where}: it ends early")
        return np.ascontiguousarray(part)

    def _fill(self, shape: tuple[int, ...]) -> np.ndarray:
        array = np.empty(shape, self._column.dtype)
        target = array.reshape(-1).view(np.uint8)
        filled = 0
        with reported(self._where):
            while filled < len(target):
                count = self._stream.readinto(target[filled : filled + BLOCK_BYTES].data)
                if not count:
                    raise EOFError("it ends early")
                filled += count
        return array

    def close(self) -> None:
        self._stream.close()


def write_npz(
    file: BinaryIO, columns: Shapes, blocks: Callable[[str], Iterable[np.ndarray]]
) -> None:
    """Write a compressed npz file as a stream, into a file that is open and empty.

    Args:
        columns: shape and type of each.
        blocks: gives a column's rows in order, some (B, ...) at a time; called column by column.

    Equal data make equal files. Raises ValueError if the rows are not as many as announced.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, (shape, dtype) in columns.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # its date is a fixed one
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as stream:
                descr = npy.dtype_to_descr(np.dtype(dtype))
                header = {"descr": descr, "fortran_order": False, "shape": tuple(shape)}
                npy.write_array_header_1_0(stream, header)
                rows = 0
                for block in blocks(name):
                    stream.write(np.ascontiguousarray(block, dtype).reshape(-1).view(np.uint8))
                    rows += len(block)
            if rows != shape[0]:
                raise ValueError(f"column {name} has {rows} rows, not {shape[0]}")


@contextlib.contextmanager
def reported(where: str) -> Iterator[None]:
    """Turn any error of reading a bad file into a UserError that says where it happened."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"there is no file {where}") from error
    except DAMAGE as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: cannot be read ({reason}); get the file again") from error
