"""Real commands in processes of their own, and what they leave when they are killed."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults.report import ROOT
from tests.helpers.processes import alive

PATIENCE = 30.0  # seconds that workers have to notice that their parent was killed


def start(arguments: Sequence[str]) -> subprocess.Popen:
    """Run `python ARGUMENTS` in a session of its own, with one thread."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def finish(arguments: Sequence[str]) -> tuple[int, str]:
    """Run `python ARGUMENTS` to its end; returns exit code and output."""
    with start(arguments) as process:
        output, _ = process.communicate()
    return process.returncode, output


def kill_after(process: subprocess.Popen, seconds: float) -> bool:
    """SIGKILL a process after a while; returns whether it was still running."""
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()  # workers may hold the other end for a moment
        return True
    return False


def members(session: int) -> list[int]:
    """The running processes of a session; zombies do not count."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            if os.getsid(pid := int(folder.name)) == session and alive(pid):
                found.append(pid)
    return found


def orphans(session: int) -> list[str]:
    """Processes left of a session after `PATIENCE`; they are ended then."""
    deadline = time.monotonic() + PATIENCE
    while members(session) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = []
    for pid in members(session):
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        left.append(f"{pid} {command[:80]}")
        os.kill(pid, signal.SIGKILL)
    return left


def emptied(folder: Path) -> Path:
    """A folder made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def temporaries(folder: Path) -> list[str]:
    """Temporary files under a folder."""
    found = [*folder.rglob("*.tmp"), *folder.rglob("*.tmp.*"), *folder.rglob("*.part")]
    return [str(path.relative_to(folder)) for path in found]
