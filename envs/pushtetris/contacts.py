"""Marks of contacts in pictures: thin lines with soft edges, as pygame draws them.

Wu's algorithm: of each row or column that a line crosses, the two pixels beside it share its
colour. All in single precision and rounded down, so that each colour is pygame's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

Point = tuple[int, int]
Color = tuple[int, ...]
COLOR = (231, 76, 60)
ONE = np.float32(1)


def blended(under: Color, weight: np.float32) -> Color:
    """Return the colour of a pixel of which a line covers a share, over what lies `under` it."""
    pairs = zip(COLOR, under, strict=True)
    return tuple(int(np.float32(c) * weight + np.float32(u) * (ONE - weight)) for c, u in pairs)


def samples(
    lines: Iterable[tuple[Iterable[float], Iterable[float]]], stride: int
) -> Iterator[tuple[Point, np.float32]]:
    """Pixels of lines from point to point, and the shares of them that are covered.

    A pixel is x and y of a sample, of which there is one in `stride` pixels both ways.
    """
    for start, end in lines:
        (x0, y0), (x1, y1) = map(round, start), map(round, end)
        steep = abs(x1 - x0) < abs(y1 - y0)
        ends = ((y0, x0), (y1, x1)) if steep else ((x0, y0), (x1, y1))
        for at, across, weight in _line(*sorted(ends)):
            x, y = (across, at) if steep else (at, across)
            if x % stride == 0 == y % stride:
                yield (x // stride, y // stride), weight


def _line(start: Point, end: Point) -> Iterator[tuple[int, int, np.float32]]:
    """Pixels of a line along its main axis: place on it, place across it, share covered."""
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
