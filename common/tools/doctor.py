"""This machine as the project finds it, and what is wrong with it.

    python -m common.tools.doctor [SETTING=VALUE ...]

Settings such as data_dir, output_dir and device are those of `config.yaml`. Exit code 1 if anything
is wrong; nothing is changed.
"""

import platform
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from common.foundation.device import device_name, resolve_device
from common.foundation.errors import UserError, one_line_errors
from common.foundation.memory import free_memory
from common.foundation.processes import available_cores
from common.settings.config import ROOT, Config, compose
from datasets.npz import NpzFile
from datasets.source import SPLITS
from datasets.store import HEADER, Dataset, read_header
from envs.rendering import backend, rendering_problem

OLDEST_PYTHON = (3, 11)
MIN_FREE = 2**30  # bytes of disk and of memory

Finding = tuple[str, str, bool]  # subject, what was found, whether it is right


def versions() -> Iterator[Finding]:
    """Python and the packages of requirements.txt, compared with the versions there."""
    yield "python", platform.python_version(), sys.version_info >= OLDEST_PYTHON
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        wanted = re.fullmatch(r"([\w-]+)==(\S+)", line)
        if not wanted:
            continue
        name, tested = wanted.groups()
        try:
            found = version(name)
        except PackageNotFoundError:
            yield name, f"not installed: pip install {line}", False
            continue
        # What comes after + says for which device it was built.
        same = found.split("+")[0] == tested
        yield name, found if same else f"{found}, tested with {tested}", True


def machine(config: Config) -> Iterator[Finding]:
    """Device, cores, rendering, memory and disk."""
    try:
        device = resolve_device(config.device)
        yield "device", f"{device} ({device_name(device)})", True
    except UserError as error:
        yield "device", str(error), False
    yield "cores", f"{available_cores()}", True
    problem = rendering_problem()
    yield "frames", problem or f"drawn with MUJOCO_GL={backend()}", problem is None
    free = free_memory(torch.device("cpu"))
    yield "free memory", _size(free), free > MIN_FREE
    for key in ("data_dir", "output_dir"):
        place = _existing(Path(getattr(config, key)))
        free = shutil.disk_usage(place).free
        yield f"free disk, {key}", f"{_size(free)} at {place}", free > MIN_FREE


def datasets(config: Config) -> Iterator[Finding]:
    """Every dataset in `data_dir`, by its header or columns."""
    folder = Path(config.data_dir)
    found = [(header.parent, _dataset) for header in sorted(folder.glob(f"*/{HEADER}"))]
    found += [(path, _archive) for path in sorted(folder.glob("*.npz"))]
    for path, look in found:
        try:
            yield path.name, *look(path)
        except UserError as error:
            yield path.name, str(error), False


def _dataset(folder: Path) -> tuple[str, bool]:
    if (folder / "latents.npy").exists():
        return "latents of an encoder", True
    dataset = Dataset(folder, read_header(folder))
    about = f"{dataset.header['environment']}, {dataset.progress()}"
    if any(dataset.missing(split) for split in SPLITS):
        return f"{about}; `{dataset.header['command']}` continues it", False
    return about, True


def _archive(path: Path) -> tuple[str, bool]:
    with NpzFile(path) as file:
        rows = {column.shape[0] for column in file.columns.values()}
    return f"{', '.join(map(str, rows))} rows", len(rows) == 1


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    path = path.resolve()
    return next(place for place in (path, *path.parents) if place.exists())


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def findings(settings: Sequence[str]) -> Iterator[Finding]:
    """Everything, what matters most first."""
    yield from versions()
    config = compose(settings)
    yield from machine(config)
    yield from datasets(config)


def main(arguments: Sequence[str]) -> None:
    if any(argument in ("-h", "--help") for argument in arguments):
        print(__doc__)
        return
    wrong = 0
    with one_line_errors():
        for name, found, right in findings(arguments):
            wrong += not right
            print(f"{'' if right else 'WRONG ':6}{name:26}{found}")
        print("nothing is wrong" if not wrong else f"{wrong} of these are wrong")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
