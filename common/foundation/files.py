"""Files that are either the old one or the new one, never a torn one."""

import contextlib
import csv
import errno
import fcntl
import io
import json
import os
import secrets
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

from common.foundation.errors import UserError
from common.foundation.messages import warn

CHECKSUM = "checksum"  # key of a sealed JSON file
# What disks without file locks answer, mostly those of a network.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
NAME_BYTES, PATH_BYTES = 255, 4095  # that a part of a path, and the whole, may have
INNER_BYTES = 150  # of paths within a folder that we make
SHOWN = 40  # characters of a name that is too long


def check_path(path: str | os.PathLike[str], key: str = "NAME") -> None:
    """Raise `UserError` if there could be no such folder, or files in it, for the path's length.

    Args:
        key: setting or argument to shorten, for the message.
    """
    whole = Path(os.path.abspath(path))
    allowed = _name_limit(whole)
    longest = max(whole.parts, key=lambda part: len(os.fsencode(part)))
    for what, size, most in (
        (longest, len(os.fsencode(longest)), allowed),
        (str(whole), len(os.fsencode(whole)) + INNER_BYTES, PATH_BYTES),
    ):
        if size > most:
            raise UserError(
                f"the name {what[:SHOWN]}...{what[-SHOWN:]} has {size} bytes and at most {most} "
                f"are possible; shorten {key}"
            )


def _name_limit(path: Path) -> int:
    """Bytes that a part of the path may have where its nearest existing folder lies."""
    place = next(folder for folder in (path, *path.parents) if os.path.exists(folder))
    try:
        found = os.pathconf(place, "PC_NAME_MAX")
    except OSError:  # a file system that does not tell
        return NAME_BYTES
    return min(found, NAME_BYTES) if found > 0 else NAME_BYTES


def make_folder(path: str | os.PathLike[str], key: str = "NAME") -> Path:
    """Create a folder and those above it, where they are not there; return its path.

    Raises `UserError` if that is not possible. `key`: see `check_path`.
    """
    check_path(path, key)
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {path}: {error.strerror}") from error
    return Path(path)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file that takes the place of `path` when the block ends without an error.

    It is written as `.NAME.tmp` in the same folder, synced to disk and renamed. An error in the
    block leaves the previous file as it was. What a killed process left is overwritten by the next
    write. Raises `UserError` where the disk refuses, or if another process is writing the path.
    """
    path = Path(path)
    try:
        with _temporary(path) as (file, place):
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(place, path)
            except BaseException:
                place.unlink(missing_ok=True)
                raise
        _sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """An empty file beside `path` that nobody else writes to, and where it is.

    It is locked or, on a disk without locks, has a name of its own.
    """
    place = path.with_name(f".{path.name}.tmp")
    locked: bool | None = True
    while locked:
        with open(os.open(place, os.O_RDWR | os.O_CREAT, 0o666), "w+b") as file:
            locked = _try_lock(file, path.parent)
            if locked is False:
                raise UserError(f"another process is writing {path}; wait for it")
            if locked and _is(file, place):  # else its last owner renamed it before we had the lock
                file.truncate(0)
                yield file, place
                return
    place.unlink(missing_ok=True)
    place = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with open(place, "x+b") as file:
        yield file, place


def lock(file: IO[Any], folder: Path) -> bool:
    """Lock an open file of `folder` until it is closed; False if another process has it locked.

    On a disk without file locks, warns of that once and goes on without.
    """
    return _try_lock(file, folder) is not False


def _try_lock(file: IO[Any], folder: Path) -> bool | None:
    """As `lock`, but None on a disk without file locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        places = [folder.resolve(), *folder.resolve().parents]
        disk = next(place for place in places if place.is_mount())
        warn(
            f"the disk at {disk} has no file locks ({error.strerror}), so nothing there keeps two "
            "commands from the same folder: start one at a time",
            once=True,
        )
        return None
    return True


def _is(file: BinaryIO, path: Path) -> bool:
    """True where the open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def write_json(path: str | os.PathLike[str], value: Any, *, sealed: bool = False) -> None:
    """Write `value` as indented JSON, atomically.

    A `sealed` one, a dictionary, ends with a checksum of the rest, which `read_json` compares and
    takes away.
    """
    if sealed:
        value = {**value, CHECKSUM: _checksum(value)}
    text = json.dumps(value, indent=2) + "\n"
    with atomic_write(path) as file:
        file.write(text.encode())


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file; raise `UserError` naming it if it is missing, unreadable or damaged.

    Files of other programs, and of versions of this code that did not seal, have no checksum.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); move it away") from error
    if isinstance(value, dict) and CHECKSUM in value:
        found = value.pop(CHECKSUM)
        if found != _checksum(value):
            raise UserError(
                f"{path} is damaged: its checksum is {found!s:.20}, not {_checksum(value)}; get it "
                f"again, or take out its line {CHECKSUM} if it was changed on purpose"
            )
    return value


def _checksum(value: Any) -> str:
    """CRC-32 of a value as JSON, whatever its layout and order of keys."""
    plain = json.loads(json.dumps(value))  # tuples are lists, and keys text
    return f"{zlib.crc32(json.dumps(plain, sort_keys=True).encode()):08x}"


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV under the names of the first one's columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_csv(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """The rows of a CSV file by the names of its columns."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power failure, where the disk can sync folders."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, *NO_LOCKS):
            raise
    finally:
        os.close(descriptor)
