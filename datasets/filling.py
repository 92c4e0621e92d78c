"""A dataset folder while episodes are put into it: one process at a time, stoppable, of one kind.

Collection, import and merge add the episodes that are missing. The files present are all the state
there is, so the same command continues after any kind of end.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.foundation.errors import UserError
from common.foundation.files import check_path, lock, write_json
from datasets.source import SPLITS
from datasets.store import HEADER, Dataset, header_start, read_header


def dataset_folder(data_dir: str | Path, name: str) -> Path:
    """Folder of dataset `name`. Raises UserError if that is no name of a folder, or too long."""
    if name in ("", "..") or Path(name).name != name:
        raise UserError(f"dataset_name={name} must be a plain folder name")
    check_path(Path(data_dir) / name, "dataset_name")
    return Path(data_dir) / name


@contextlib.contextmanager
def filling(folder: Path, header: dict[str, Any]) -> Iterator[Dataset]:
    """Open `folder` to add episodes, and mark it as complete when the block ends without an error.

    It is made if need be, and locked until the block ends. `header` is that of the dataset without
    format, name, complete and rows. Raises UserError if the folder cannot be made, if another
    process fills it, or if it holds other data.
    """
    header = json.loads(json.dumps(header_start(folder) | header))  # tuples read back as lists
    with exclusive(folder):
        dataset = _prepare(folder, header | {"complete": False})
        yield dataset
        if not dataset.header["complete"]:
            rows = {split: int(dataset.lengths(split).sum()) for split in SPLITS}
            header = dataset.header | {"complete": True, "rows": rows}
            write_json(folder / HEADER, header, sealed=True)


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Make the folder if need be and hold its lock until the block, or the process, ends.

    Raises UserError if the folder cannot be made or another process holds the lock.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "a")  # noqa: SIM115  closed below
    except OSError as error:
        raise _no_folder(folder, error) from error
    with file:
        if not lock(file, folder):
            raise UserError(f"another process is writing into {folder}")
        yield


def _no_folder(folder: Path, error: OSError) -> UserError:
    return UserError(f"cannot make the folder {folder}: {error.strerror}")


def _prepare(folder: Path, header: dict[str, Any]) -> Dataset:
    """The dataset to fill: the one in `folder` if its settings agree, else a new one."""
    try:
        for split in SPLITS:
            (folder / split).mkdir(exist_ok=True)
    except OSError as error:
        raise _no_folder(folder, error) from error
    for leftover in folder.glob("*/.*.tmp"):
        leftover.unlink(missing_ok=True)
    if not (folder / HEADER).exists():
        write_json(folder / HEADER, header, sealed=True)
        return Dataset(folder, header)
    dataset = Dataset(folder, read_header(folder))
    # Of no influence on the data, or known only at the end; the simulator's versions matter as
    # long as something is left to simulate.
    ignored = {"command", "complete", "rows", "versions.python", "versions.h5py"}
    if not header["pixels"]:
        ignored |= {"multiview", "settings.render_quality"}
    if not any(dataset.missing(split) for split in SPLITS):
        ignored.add("versions")
    if found := difference(dataset.header, header, ignored):
        key, have, want = found
        raise UserError(
            f"{folder} was made with {key}={have!s:.100}, not {want!s:.100}; choose another name "
            "or delete the folder"
        )
    return dataset


def difference(
    have: Mapping[str, Any], want: Mapping[str, Any], ignored: set[str], path: str = ""
) -> tuple[str, Any, Any] | None:
    """First key (dotted) whose values differ, with both values; None stands for a missing one."""
    for key in [*want, *(key for key in have if key not in want)]:
        a, b, name = have.get(key), want.get(key), path + key
        if name in ignored or a == b:
            continue
        if not (isinstance(a, dict) and isinstance(b, dict)):
            return name, a, b
        if found := difference(a, b, ignored, f"{name}."):
            return found
    return None
