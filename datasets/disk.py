"""A file for HDF5 to write to, on a disk that may be full.

HDF5 does not survive a failed write: whatever closes the file afterwards fails again, and the
process ends in a segmentation fault. So a failure is kept here, out of its sight, for the owner of
the file to ask for; from then on nothing is written any more.
"""

import io
import os
from pathlib import Path

from common.errors import UserError


class Disk(io.RawIOBase):
    """A new file, written without buffers.

    Raises UserError if it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._error: OSError | None = None
        try:
            self._file = open(path, "w+b", buffering=0)  # noqa: SIM115  closed by `close`
        except OSError as error:
            raise self._reported(error) from error

    def check(self) -> None:
        """Raise UserError if anything could not be written."""
        if self._error:
            raise self._reported(self._error) from self._error

    def commit(self, path: Path) -> None:
        """Rename the file, closed before, to `path` once all of it is on the disk."""
        try:
            self.check()
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())
            os.replace(self.path, path)
        except OSError as error:
            raise self._reported(error) from error

    def _reported(self, error: OSError) -> UserError:
        return UserError(f"cannot write {self.path}: {error.strerror or error}")

    # What h5py calls.

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: memoryview) -> int:
        return self._file.readinto(buffer)

    def write(self, content: memoryview) -> int:
        left = memoryview(content)
        try:
            while left and not self._error:
                left = left[self._file.write(left) :]  # less than all, if the disk is about full
        except OSError as error:
            self._error = error
        return len(content)

    def truncate(self, size: int) -> None:
        try:
            self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error

    def close(self) -> None:
        self._file.close()
        super().close()
