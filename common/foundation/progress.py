"""Progress bars, in a terminal as tqdm draws them; in a file or a pipe, a few lines."""

import sys
from typing import Any, TextIO

from tqdm import tqdm

SECONDS = 30.0  # between two lines in a file
LINE = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
MOVES = "\x1b[A", "\r", "\n"  # by which a bar finds its place in a terminal


class Bar(tqdm):
    """A bar on stderr, with tqdm's arguments.

    Where that is no terminal: a line at its beginning, each half minute and at its end.
    """

    def __init__(self, *arguments: Any, **about: Any) -> None:
        if not sys.stderr.isatty():
            about |= {"file": _Lines(sys.stderr), "mininterval": SECONDS, "miniters": 1}
            about |= {"bar_format": LINE, "leave": True}
        super().__init__(*arguments, **about)


class _Lines:
    """File for a bar, that gets a line where a terminal would get the bar drawn anew."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        for move in MOVES:
            text = text.replace(move, "")
        if text.strip():
            self._file.write(text.rstrip() + "\n")

    def flush(self) -> None:
        self._file.flush()
