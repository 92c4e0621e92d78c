"""Disks that are full, read-only or used up, and files that go while they are read."""

import contextlib
import errno
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from common.runs import checkpoint
from common.runs.metrics import MetricsLog
from datasets.convert import export_npz
from datasets.episodes import EpisodeWriter
from datasets.store import Dataset, episode_path
from tests.faults.processes import emptied, finish
from tests.faults.report import Tally, ending
from tests.helpers.datasets import assert_same_data, record

COLUMNS = {"actions": ((2,), "float32"), "observations": ((16, 16, 3), "uint8")}
MAPPED = """
import sys
from pathlib import Path
from common.foundation.errors import show_crashes
import numpy as np
show_crashes()
path = Path(sys.argv[1])
np.save(path, np.zeros(10**6))
rows = np.load(path, mmap_mode="r")
path.unlink() if sys.argv[2] == "unlink" else open(path, "r+b").truncate(100)
print(rows[::512].sum())
"""


@contextlib.contextmanager
def limited(room: int) -> Iterator[None]:
    """No file can grow beyond `room` bytes, here and in processes started meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def refusing(number: int) -> Iterator[None]:
    """The system answers every sync to disk with an error: full, quota, read-only, broken."""
    with mock.patch("os.fsync", side_effect=OSError(number, os.strerror(number))):
        yield


class Files:
    """One of each kind of file that is written again and again, with its content."""

    def __init__(self, place: Path) -> None:
        self.place = emptied(place)
        self.dataset = record(place, "points", episodes=3, pixels=True)
        self.last = place / "last.safetensors"
        checkpoint.save(self.last, {"a": torch.zeros(2000)}, {"step": 1})
        self.log = MetricsLog(place / "train.csv", None)
        self.log.write(1, {"a": 1.0})
        self.before = self.content()

    def content(self) -> dict[str, bytes]:
        """Every file by its name."""
        files = (path for path in self.place.rglob("*") if path.is_file())
        return {str(path.relative_to(self.place)): path.read_bytes() for path in files}

    @property
    def writers(self) -> dict[str, Callable[[], object]]:
        """Actions that write, by their names."""
        return {
            "checkpoint": lambda: checkpoint.save(self.last, {"a": torch.ones(2000)}, {"step": 2}),
            "episode": self.write_episode,
            "export": lambda: export_npz(self.dataset, self.place / "out.npz"),
            "metrics": lambda: self.log.write(2, {"a": 2.0}),
        }

    def write_episode(self) -> None:
        frame = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
        with EpisodeWriter(episode_path(self.dataset.folder, "train", 0), COLUMNS) as writer:
            for _ in range(20):
                writer.append({"actions": np.zeros(2, np.float32), "observations": frame})


def writing(place: Path, rooms: int) -> list[Tally]:
    """Every writer on every kind of disk that refuses."""
    full = Tally("a disk that fills up while a file is written")
    other = Tally("a disk that is full, read-only, over quota or broken when a file is synced")
    for room in np.linspace(0, 5000, rooms).astype(int).tolist():
        for name in Files(place).writers:
            attempt(place, name, limited(room), full)
    for number in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO):
        for name in Files(place).writers:
            attempt(place, name, refusing(number), other)
    return [full, other]


def attempt(
    place: Path, name: str, trouble: contextlib.AbstractContextManager, tally: Tally
) -> None:
    """One write on a bad disk: told, with all files as they were (metrics may have grown)."""
    files = Files(place)
    with trouble:
        end, text = ending(files.writers[name])
    if end == "told":
        after = files.content()
        grown = after.pop("train.csv"), files.before.pop("train.csv")
        kept = after == files.before and grown[0].startswith(grown[1])
        tally.expect(kept and text.startswith("cannot write"), f"{name}: {text}", "told")
    else:
        good = end == "harmless" and name != "checkpoint"  # which is larger than every room
        tally.expect(good, f"{name}: {text or 'written without a word'}")


def small_disk(place: Path) -> Tally:
    """A real file system of one megabyte, where this user may mount one."""
    tally = Tally("a real file system of one megabyte (tmpfs)")
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        tally.note = "not tried: it needs the right to mount"
        return tally
    try:
        whole = record(place.parent, "whole", episodes=2)
        dataset = record(place, "whole", episodes=2)
        last = place / "last.safetensors"
        checkpoint.save(last, {"a": torch.zeros(20_000)}, {"step": 1})
        for size in (300_000, 400_000, 10**6):
            end, text = ending(lambda s=size: checkpoint.save(last, {"a": torch.ones(s)}, {}))
            kept = checkpoint.load(last)[1] == {"step": 1}
            assert_same_data(Dataset.open(place, "whole"), whole)
            told = end == "told" and "No space left" in text
            tally.expect(kept and told, text or f"{size} numbers fit", "told")
        tally.expect(dataset.header["complete"], "the dataset is not complete")
    finally:
        subprocess.run(["umount", str(place)], check=False)
    return tally


def mapped(place: Path) -> Tally:
    """A mapped file that is removed stays readable; one cut short ends the process, with a word."""
    tally = Tally("a mapped file that is removed, or cut short")
    place.mkdir(parents=True, exist_ok=True)
    command = ["-c", MAPPED, str(place / "mapped.npy")]
    _, output = finish([*command, "unlink"])
    tally.expect(output.strip() == "0.0", output)
    code, output = finish([*command, "truncate"])
    tally.expect("Bus error" in output and code < 0, f"{code}: {output}", "told")
    return tally


def run_all(place: Path, rooms: int) -> list[Tally]:
    return [*writing(place / "files", rooms), small_disk(place / "small"), mapped(place)]
