"""Disks without file locks, as networks have them: the work goes on, and one line says so."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from common.foundation import files
from common.foundation.errors import UserError
from common.foundation.files import atomic_write
from common.foundation.messages import Terminal, lines_to
from common.runs.folders import open_run
from common.settings.config import compose
from tests.helpers.datasets import record

WITHOUT = [37, 38, 95]  # ENOLCK, ENOSYS, EOPNOTSUPP


@pytest.fixture(params=WITHOUT)
def refused(request, monkeypatch) -> int:
    """The error that every lock ends with."""
    refuse_locks(monkeypatch, request.param)
    return request.param


def refuse_locks(monkeypatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_the_numbers_are_those_of_this_system():
    assert set(WITHOUT) <= set(files.NO_LOCKS)


def test_files_are_whole_whoever_writes_them_at_once(refused, tmp_path: Path, capsys):
    path = tmp_path / "file"
    with atomic_write(path) as one:
        one.write(b"o")
        with atomic_write(path) as other:
            other.write(b"other")
        one.write(b"ne")
    assert path.read_bytes() == b"one"
    with pytest.raises(ArithmeticError), atomic_write(path) as broken:
        broken.write(b"half")
        raise ArithmeticError
    assert path.read_bytes() == b"one" and list(tmp_path.iterdir()) == [path]
    (told,) = capsys.readouterr().out.splitlines()
    disk = next(place for place in tmp_path.resolve().parents if place.is_mount())
    assert told == (
        f"warning: the disk at {disk} has no file locks ({os.strerror(refused)}), so nothing there "
        "keeps two commands from the same folder: start one at a time"
    )


def test_runs_and_collections_go_on_and_keep_the_warning(refused, tmp_path: Path):
    config = compose(["env_kwargs.manipobj.num_cubes=1", f"output_dir={tmp_path}"])
    with open_run(config) as run:
        (run.path / ".last.safetensors.0123abcd.tmp").touch()  # as a killed process leaves it
    with open_run(config) as run:
        assert run.resumed and not list(run.path.glob("*.tmp"))
    with lines_to(Terminal()):  # another command
        dataset = record(tmp_path / "data", episodes=2)
    assert dataset.header["complete"]
    for folder in (run.path, dataset.folder):
        (line,) = (folder / "warnings.txt").read_text().splitlines()
        assert "has no file locks" in line


def test_other_errors_of_a_lock_are_errors(tmp_path: Path, monkeypatch):
    refuse_locks(monkeypatch, errno.EIO)
    with pytest.raises(UserError, match=r"cannot write .*file: Input/output error"):
        with_content(tmp_path / "file")
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("number", [*WITHOUT, errno.EINVAL])
def test_a_disk_that_cannot_sync_folders_is_written_to(tmp_path: Path, monkeypatch, number: int):
    real = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    assert with_content(tmp_path / "file").read_bytes() == b"content"


def with_content(path: Path) -> Path:
    with atomic_write(path) as file:
        file.write(b"content")
    return path
