"""The largest memory of worker processes: each leaves a note of its own."""

import os
import resource
import sys
from pathlib import Path


def note_peak(folder: Path) -> None:
    """Write down what this process has taken at most; the last note of a process counts."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    (folder / f"peak-{os.getpid()}").write_text(str(peak))


def largest_peak(folder: Path) -> float:
    """MiB of the largest process that left a note in `folder`."""
    return max(int(path.read_text()) for path in folder.glob("peak-*")) / 2**20
