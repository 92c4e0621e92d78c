"""Marks of contacts in pictures: thin lines with soft edges, as pygame draws them.

Wu's algorithm: of each row or column that a line crosses, the two pixels beside it share its
colour. All in single precision and rounded down, so that each colour is pygame's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from envs.pushtetris import rules
from envs.pushtetris.palette import CONTACT, PALETTE

Point = tuple[int, int]
Lines = Iterable[tuple[Iterable[float], Iterable[float]]]  # from point to point
Marks = dict[Point, np.ndarray]  # colours (3,) uint8 by row and column
ONE = np.float32(1)


def mark(picture: np.ndarray, lines: Lines) -> Marks:
    """Add contacts to a picture (size, size); return the colours there, blends with it."""
    marks: Marks = {}
    size = len(picture)
    for (x, y), share in samples(lines, rules.PLANE // size):
        if 0 <= x < size and 0 <= y < size:
            under = marks.get((y, x), PALETTE[picture[y, x]])
            color = (PALETTE[CONTACT] * share + under * (ONE - share)).astype(np.uint8)
            if (color != under).any():
                picture[y, x], marks[y, x] = CONTACT, color
    return marks


def colored(picture: np.ndarray, marks: Marks) -> np.ndarray:
    """Return a picture (size, size) in RGB, (size, size, 3) uint8."""
    frame = PALETTE[picture]
    for pixel, color in marks.items():
        if picture[pixel] == CONTACT:
            frame[pixel] = color
    return frame


def samples(lines: Lines, stride: int) -> Iterator[tuple[Point, np.float32]]:
    """Pixels of lines, x and y in samples, one in `stride` both ways, and how much is covered."""
    for start, end in lines:
        (x0, y0), (x1, y1) = map(round, start), map(round, end)
        steep = abs(x1 - x0) < abs(y1 - y0)
        ends = ((y0, x0), (y1, x1)) if steep else ((x0, y0), (x1, y1))
        for at, across, share in _line(*sorted(ends)):
            x, y = (across, at) if steep else (at, across)
            if x % stride == 0 == y % stride:
                yield (x // stride, y // stride), share


def _line(start: Point, end: Point) -> Iterator[tuple[int, int, np.float32]]:
    """Pixels of a line: place along its main axis, place across it, share covered."""
    (first, level), (last, final) = start, end
    slope = np.float32(final - level) / np.float32(max(last - first, 1))
    across = np.float32(level) + ONE  # one higher, so that it is rounded down above zero, too
    for at in range(first, last):
        low = int(across)
        share = ONE - across + np.float32(low)
        yield at, low - 1, share
        if low < across:
            yield at, low, ONE - share
        across = across + slope
    yield last, final, ONE
