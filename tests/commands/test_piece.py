"""commands/piece.sh: a reproduction that goes from machine to machine."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.shells import REPOSITORY, this_python

MIB = 2**20
# In the place of Python: adds to a file of 20 MiB in the output folder, and waits to be stopped.
STUB = """#!/usr/bin/env bash
runs="${@: -1}"; runs="${runs#output_dir=}"
[ -f "$runs/run" ] || head -c 20971520 /dev/urandom > "$runs/run"
trap 'echo saved >> "$runs/run"; exit 143' TERM
while true; do sleep 0.05; done
"""


@pytest.fixture
def piece(tmp_path):
    """Runs the command as on a machine of a name, with nothing but what lies in `carried`."""
    venv = this_python(tmp_path)

    def run(machine: str, minutes: str, *arguments: str) -> subprocess.CompletedProcess:
        output = {"VENV": str(venv), "OUTPUT": str(tmp_path / machine)}
        command = ["bash", "commands/piece.sh", minutes, str(tmp_path / "carried"), *arguments]
        return subprocess.run(
            command, cwd=REPOSITORY, env=os.environ | output, capture_output=True, text=True
        )

    return run


def parts(folder: Path) -> dict[str, list[int]]:
    """The sizes of the files in each piece."""
    pieces = sorted((folder / "carried").iterdir())
    return {p.name: [part.stat().st_size for part in sorted(p.iterdir())] for p in pieces}


def test_what_is_stopped_in_time_goes_on_elsewhere(piece, tmp_path):
    (tmp_path / "bin" / "python").write_text(STUB)
    for number, machine in enumerate(["first", "first", "second", "first"], start=1):
        done = piece(machine, "0.01", "main")
        assert done.returncode == 0, done.stderr
        sizes = parts(tmp_path)
        assert list(sizes) == [f"piece-{number:04d}"]
        assert max(sizes[f"piece-{number:04d}"]) <= 16 * MIB
        run = (tmp_path / machine / "carried" / "run").read_bytes()
        assert run[20 * MIB :] == b"saved\n" * number  # the last machine had an old piece


def test_parts_that_are_missing_are_noticed(piece, tmp_path):
    (tmp_path / "bin" / "python").write_text(STUB)
    assert piece("first", "0.01", "main").returncode == 0
    (tmp_path / "carried" / "piece-0001" / "part-0001").unlink()
    assert piece("second", "0.01", "main").returncode != 0
    assert list(parts(tmp_path)) == ["piece-0001"]


def test_a_table_at_smoke_scale_is_finished_and_carried(piece, tmp_path):
    data = f"data_dir={tmp_path}/data"
    done = piece("first", "10", "main", "smoke", data, "jobs=2")
    assert done.returncode == 0, done.stdout + done.stderr
    done = piece("second", "10", "main", "smoke", data, "jobs=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "training: nothing to do" in done.stdout
    assert "evaluation: nothing to do" in done.stdout
    assert (tmp_path / "second" / "carried" / "tables" / "main.md").is_file()


@pytest.mark.parametrize("arguments", [("soon", "main"), ("9",)])
def test_mistakes_are_explained_in_one_line(piece, arguments, tmp_path):
    done = piece("first", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: give MINUTES FOLDER TABLE")
    assert done.stderr.count("\n") == 1 and not (tmp_path / "carried").exists()
