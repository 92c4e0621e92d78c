"""Pictures of the plane: the pixels that pymunk's pygame debug drawing would set, and only those.

The reference draws 512 x 512 pixels with pygame and keeps every 4th one. This draws the kept ones
alone, in a fraction of a millisecond, by the same rules in whole numbers: each rectangle of a piece
is a filled polygon whose edges are drawn over as fat segments. Of 3,000 pictures of pieces that
crossed the border, one differed from pygame's by a pixel.

Letters: K rectangles, W side of a rectangle's window in samples. A sample is a pixel of the small
picture; coordinates are those of the large surface, and a span is (first, last), both included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from envs.pushtetris import rules
from envs.pushtetris.palette import AGENT, BACKGROUND, INDICES, TARGET, WALL
from envs.pushtetris.physics import WALL_HIGH, WALL_LOW, WALL_RADIUS

EDGE_RADIUS = 2  # of the fat segments around pieces
LINE = (-1, 2)  # a line of width 4 covers this much around its middle, across its main direction
REACH = 130  # longest extent of a drawn rectangle: diagonal 124, edges of 2 each, rounding
NOWHERE = 1 << 20
# Half widths of pygame's discs, from the first row above the centre upwards; both halves are alike.
DISCS = {
    EDGE_RADIUS: (2, 1),
    rules.AGENT_RADIUS: (15, 15, 15, 14, 14, 14, 13, 13, 12, 11, 10, 9, 8, 6, 3),
}


@dataclass(frozen=True)
class Shapes:
    """The rectangles of some pieces, one after another."""

    corners: np.ndarray  # (K, 4, 2) around the origin of their piece
    owner: np.ndarray  # (K,) the piece that a rectangle belongs to
    color: np.ndarray  # (K,) palette index

    @classmethod
    def of(cls, names: Sequence[str]) -> Shapes:
        """The shapes of the pieces with these `names`."""
        pieces = [rules.PIECES[name] for name in names]
        counts = [len(piece.rectangles) for piece in pieces]
        return cls(
            np.concatenate([np.zeros((0, 4, 2)), *(piece.corners for piece in pieces)]),
            np.repeat(np.arange(len(pieces)), np.array(counts, int)),
            np.repeat([INDICES[name] for name in names], np.array(counts, int)),
        )

    def placed(self, poses: np.ndarray) -> np.ndarray:
        """Corners (K, 4, 2) in whole units, of pieces at `poses` (pieces, 3)."""
        x, y, angle = poses[self.owner].T[..., None]
        cos, sin = np.cos(angle), np.sin(angle)
        u, v = self.corners[..., 0], self.corners[..., 1]
        return np.rint(np.stack([x + cos * u - sin * v, y + sin * u + cos * v], -1)).astype(int)


class Painter:
    """Paints pictures of `size` x `size` pixels; `size` divides 512.

    A picture is an array (size, size) of palette indices; `PALETTE[picture]` is RGB.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._stride = rules.PLANE // size
        self._window = REACH // self._stride + 2
        self._walls = self._wall_mask()

    def _wall_mask(self) -> np.ndarray:
        """Pixels (size, size) that are wall: a frame of fat segments that end in discs."""
        at = self._stride * np.arange(self.size)
        across = np.minimum(abs(at - WALL_LOW), abs(at - WALL_HIGH)) <= WALL_RADIUS
        along = (at >= WALL_LOW) & (at <= WALL_HIGH)
        mask = (across & along[:, None]) | (across[:, None] & along)
        centers = np.array([(x, y) for x in (WALL_LOW, WALL_HIGH) for y in (WALL_LOW, WALL_HIGH)])
        first, last = _disc_spans(centers, WALL_RADIUS, at)[..., None]
        return mask | ((at >= first) & (at <= last)).any(0)

    def scene(
        self,
        shapes: Shapes,
        poses: np.ndarray,
        targets: tuple[Shapes, np.ndarray] | None = None,
        order: np.ndarray | None = None,
    ) -> np.ndarray:
        """Picture of agent and pieces at `poses` (N + 1, 3), over grey `targets` if given.

        `order` (K + 1,) has the rectangles and, as number K, the agent, the topmost last; without,
        that is the agent.
        """
        picture = np.full((self.size, self.size), BACKGROUND, np.uint8)
        if targets:
            corners = targets[0].placed(targets[1])
            self._stamp(picture, self._fill(corners), np.full(len(corners), TARGET))
        self._bodies(picture, shapes, poses[1:], poses[:1], order)
        picture[self._walls] = WALL
        return picture

    def outline(
        self, picture: np.ndarray, shapes: Shapes, pieces: np.ndarray, agents: np.ndarray
    ) -> None:
        """Add to a picture the outlines of pieces at poses (P, 3) and of agents at poses (A, 3).

        Each in its colour, but white where it runs over a body of that colour.
        """
        ghosts = np.full_like(picture, BACKGROUND)
        self._bodies(ghosts, shapes, pieces, agents)
        padded = np.pad(ghosts, 1)
        around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
        rim = (ghosts != BACKGROUND) & np.any([side != ghosts for side in around], axis=0)
        picture[rim] = np.where(picture == ghosts, BACKGROUND, ghosts)[rim]

    def _bodies(
        self,
        picture: np.ndarray,
        shapes: Shapes,
        pieces: np.ndarray,
        agents: np.ndarray,
        order: np.ndarray | None = None,
    ) -> None:
        """Paint pieces and agents in this order, or agents last."""
        rectangles, discs = self._rectangles(shapes.placed(pieces)), self._discs(agents)
        windows = [np.concatenate(parts) for parts in zip(rectangles, discs, strict=True)]
        colors = np.append(shapes.color, np.full(len(agents), AGENT))
        if order is not None:
            windows, colors = [part[order] for part in windows], colors[order]
        self._stamp(picture, windows, colors)

    def _stamp(
        self, picture: np.ndarray, windows: Sequence[np.ndarray], colors: np.ndarray
    ) -> None:
        """Colour the masks (K, W, W) at samples (K, 2), one over another."""
        origins, masks = windows
        low, high = np.maximum(origins, 0), np.minimum(origins + self._window, self.size)
        for mask, color, (x, y), (x0, y0), (x1, y1) in zip(
            masks, colors, origins, low, high, strict=True
        ):
            if x0 < x1 and y0 < y1:
                inside = mask[y0 - y : y1 - y, x0 - x : x1 - x]
                picture[y0:y1, x0:x1][inside] = color

    def _samples(self, low: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Windows at or before `low` (K, 2): origins in samples, and coordinates x and y (K, W)."""
        origins = (low - EDGE_RADIUS) // self._stride
        at = self._stride * (origins[:, None] + np.arange(self._window)[:, None])
        return origins, at[..., 0], at[..., 1]

    def _discs(self, agents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Windows and masks (A, W, W) of agents at (A, >= 2)."""
        centers = np.rint(agents[:, :2]).astype(int)
        origins, x, y = self._samples(centers - rules.AGENT_RADIUS)
        return origins, _between(x, _disc_spans(centers, rules.AGENT_RADIUS, y))

    def _fill(self, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Windows and masks (K, W, W) of filled polygons with `corners` (K, 4, 2)."""
        origins, x, y = self._samples(corners.min(axis=1))
        return origins, _between(x, _polygon_spans(corners[:, None], y)[:, :, 0])

    def _rectangles(self, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Windows and masks (K, W, W) of filled rectangles with fat edges.

        But for the polygons along the edges, what is drawn in one row lies together, and so does
        what is drawn in one column: the first and last pixel of all parts are enough.
        """
        origins, x, y = self._samples(corners.min(axis=1))
        ends = np.roll(corners, -1, axis=1)
        discs = _disc_spans(corners, EDGE_RADIUS, y[:, None])
        steep_lines, flat_lines = _line_spans(corners, ends, x, y)
        rows = _hull(_polygon_spans(corners[:, None], y), discs, steep_lines)
        edges = _polygon_spans(_edge_polygons(corners, ends), y)
        masks = _between(x, rows) | _between(y, _hull(flat_lines)).swapaxes(1, 2)
        return origins, masks | _between(x[:, None], edges).any(axis=1)


def _between(at: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Samples `at` (..., W) that lie in the spans (2, ..., W) of rows or columns: (..., W, W)."""
    first, last = spans[..., None]
    at = at[..., None, :]
    return (at >= first) & (at <= last)


def _hull(*spans: np.ndarray) -> np.ndarray:
    """Smallest spans (2, K, W) that contain those of all parts (2, K, parts, W)."""
    first, last = np.concatenate(spans, axis=2)
    return np.array([first.min(axis=1), last.max(axis=1)])


def _spans(where: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Stack spans (2, ...) that are empty but `where`."""
    return np.array([np.where(where, first, NOWHERE), np.where(where, last, -NOWHERE)])


def _disc_spans(centers: np.ndarray, radius: int, y: np.ndarray) -> np.ndarray:
    """Spans in x (2, ..., W) of discs with centres (..., 2) in rows y, of shape (..., W).

    The disc is symmetric about the upper left corner of its centre pixel, as pygame draws it.
    """
    rows = y - centers[..., 1, None]
    rows = np.where(rows < 0, -1 - rows, rows)
    half = np.array([*DISCS[radius], 0])[np.minimum(rows, radius)]
    x = centers[..., 0, None]
    return _spans(rows < radius, x - half, x + half - 1)


def _edge_polygons(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Polygons (K, 4, 4, 2) that pymunk's fat segments fill along edges (K, 4, 2).

    The offset is meant to be perpendicular, but has no signs, so on every second edge it points
    along the edge: this is how the published pictures look.
    """
    offset = abs(end - start)[..., ::-1]
    offset = np.rint(offset * (EDGE_RADIUS / np.linalg.norm(offset, axis=-1, keepdims=True)))
    offset = offset.astype(int)
    return np.stack([start - offset, start + offset, end + offset, end - offset], axis=2)


def _polygon_spans(points: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spans in x (2, K, P, W) of P convex polygons of points (K, P, 4, 2) in rows y (K, W).

    Crossings of a row with the edges are rounded towards zero. A row meets the upper end of an
    edge, and the lower end only at the bottom of the polygon.
    """
    start, end = np.roll(points, 1, axis=2), points
    upper = np.where(start[..., 1:] <= end[..., 1:], start, end)[..., None]
    lower = np.where(start[..., 1:] <= end[..., 1:], end, start)[..., None]
    x0, y0, x1, y1 = (ends[..., i, :] for ends in (upper, lower) for i in (0, 1))  # (K, P, 4, 1)
    row, bottom = y[:, None, None], points[..., 1].max(axis=2)[..., None, None]
    crosses = (row >= y0) & ((row < y1) | ((row == bottom) & (y1 == bottom) & (y0 < y1)))
    run, rise = (row - y0) * (x1 - x0), np.maximum(y1 - y0, 1)
    x = x0 + run // rise
    if (points[..., 0] < 0).any():
        x += (x < 0) & (run % rise > 0)
    first, last = _spans(crosses, x, x)
    return np.array([first.min(axis=2), last.max(axis=2)])


def _line_spans(
    start: np.ndarray, end: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Spans (2, K, 4, W) of Bresenham lines of width 4 along edges (K, 4, 2), x and y (K, W).

    Steep lines are wide in x: theirs are spans of rows. Flat ones are wide in y: spans of columns.
    """
    delta = end - start
    steep = abs(delta[..., 0]) <= abs(delta[..., 1])
    main = np.stack([~steep, steep], axis=-1)  # the axis along which the line makes all its steps
    entry = start if ((start >= 0) & (start <= rules.PLANE)).all() else _entries(start, delta)
    ahead, aside = delta[main].reshape(steep.shape), delta[~main].reshape(steep.shape)
    begin, level = entry[main].reshape(steep.shape), entry[~main].reshape(steep.shape)
    at = np.where(steep[..., None], y[:, None], x[:, None])
    steps = (at - begin[..., None]) * np.sign(ahead)[..., None]
    length = abs(ahead)[..., None]
    rise = -((length // 2 - steps * abs(aside)[..., None]) // length)
    middle = level[..., None] + np.sign(aside)[..., None] * rise
    left = abs(end[main].reshape(steep.shape) - begin)[..., None]
    on_line = (steps >= 0) & (steps <= left) & (begin < NOWHERE)[..., None]
    spans = [
        (on_line & way[..., None], middle + LINE[0], middle + LINE[1]) for way in (steep, ~steep)
    ]
    return _spans(*spans[0]), _spans(*spans[1])


def _entries(start: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Points (K, 4, 2) where lines from `start`, longer than zero, come into the plane.

    pygame lets them begin there, at the nearest whole number; `NOWHERE` for one that does not.
    """
    apart = start.clip(0, rules.PLANE) - start
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(apart == 0, 0, apart / delta).max(axis=-1, keepdims=True)
        entry = start + np.trunc(share * delta + np.copysign(0.5, delta))
    inside = (share <= 1) & (entry >= 0).all(-1, keepdims=True)
    inside &= (entry <= rules.PLANE).all(-1, keepdims=True)
    return np.where(inside, entry, NOWHERE).astype(int)
