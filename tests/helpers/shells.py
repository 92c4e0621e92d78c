"""The scripts of commands/ with the Python that runs the tests."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def this_python(folder: Path) -> Path:
    """Make `folder` what `VENV` names: a virtual environment, with everything installed."""
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    requirements = (REPOSITORY / "requirements.txt").read_text().rstrip("\n")
    (folder / "installed-requirements.txt").write_text(requirements)
    return folder
