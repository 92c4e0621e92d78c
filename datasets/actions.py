"""Scale of recorded actions: numbers in [-1, 1], or one-hot rows, as agents will give them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from common.foundation.errors import UserError
from common.foundation.messages import warn
from datasets.source import SPLITS, EpisodeSource
from envs.base import ActionSpec

ROUNDING = 1e-5  # beyond 1 is none
SLIGHT = 1.5  # up to here, numbers beyond 1 are an excess, as noise makes it; beyond, another scale
SMALL = 0.1  # if no number is larger, it may be another scale, such as metres
RESCALE = (
    "store 2 (a - low) / (high - low) - 1 instead of a, with each number's limits on the robot"
)


class Misfit(NamedTuple):
    """Reason why actions are not on the scale; a `slight` one may be trained on."""

    text: str
    slight: bool


def check_actions(blocks: Iterable[np.ndarray], spec: ActionSpec, data: str, clip: bool) -> None:
    """Warn of actions that are slightly off the scale of `spec`, refuse those that are far off.

    Args:
        blocks: all rows, some (B, A) at a time; NaN and infinity are not looked at.
        data: name of the data in messages.
        clip: whether the caller clips to [-1, 1], so that a slight excess needs no warning.

    Raises UserError for another scale, and for rows of discrete actions that are not one-hot.
    """
    found = find_misfit(blocks, spec)
    if found is None:
        return
    if not found.slight:
        raise UserError(f"{data}: {found.text}")
    if not clip:
        warn(f"{data}: {found.text}")


def find_misfit(blocks: Iterable[np.ndarray], spec: ActionSpec) -> Misfit | None:
    """Fault in the scale of actions; None if nothing is. Arguments as `check_actions`."""
    low, high, beyond, one_hot = _survey(blocks, spec.size)
    sizes = np.maximum(-low, high)
    farthest = int(sizes.argmax())
    span = f"number {farthest} of a row spans [{low[farthest]:.4g}, {high[farthest]:.4g}]"
    if spec.discrete:
        text = f"column actions has other rows than one-hot ones of {spec.size} choices ({span})"
        return None if one_hot else Misfit(text, slight=False)
    if sizes[farthest] > SLIGHT:
        text = f"column actions is on another scale than [-1, 1]: {span}; {RESCALE}"
        return Misfit(text, slight=False)
    if beyond:
        text = f"{100 * beyond:.2g} % of column actions is beyond [-1, 1]: {span}"
        text += f"; clip_actions=true clips it; if that is its scale, {RESCALE}"
        return Misfit(text, slight=True)
    if 0 < sizes[farthest] <= SMALL:
        text = f"column actions uses little of [-1, 1]: {span}; if that is its scale, {RESCALE}"
        return Misfit(text, slight=True)
    return None


def _survey(blocks: Iterable[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray, float, bool]:
    """Limits of each number (A,) each, the share beyond [-1, 1], and if all rows are one-hot."""
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    beyond, count, one_hot = 0, 0, True
    for block in blocks:
        rows = np.where(np.isfinite(block), block, 0)
        low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
        beyond += int((np.abs(rows) > 1 + ROUNDING).sum())
        count += rows.size
        one_hot &= bool(np.isin(rows, (0, 1)).all() and (rows.sum(axis=1) == 1).all())
    return low, high, beyond / count, one_hot


def recorded_actions(dataset: EpisodeSource) -> Iterator[np.ndarray]:
    """Actions (T, A) of all episodes of a dataset."""
    for split in SPLITS:
        for episode in dataset.stream(["actions"], split):
            yield episode["actions"]
