"""Where an encoder's training images come from, one by one in any order.

Letters: N images of a split, V views of a frame, H and W pixels, T rows of an episode.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from common.errors import UserError
from datasets.store import Dataset
from visual_encoders.base import CHANNELS

COLUMN = "observations"


class Frames(Protocol):
    """Images that can be read in any order, from any process; picklable.

    Attributes:
        origin: where they come from, as an encoder's `hparams.json` is to say it.
    """

    origin: Mapping[str, Any]

    def __len__(self) -> int:
        """N."""

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Images number `indices` (n,) as (n, H, W, 3) uint8."""


class DatasetFrames:
    """The images of some episodes of a dataset folder; nothing is held in memory.

    Image f of an episode is view f mod V of row f div V, as in the reference's folders.

    Args:
        episodes: their indices in `split`.
        lengths: rows of each (E,).
        limit: only the first `limit` images of an episode count; None for all.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        episodes: Sequence[int],
        lengths: np.ndarray,
        limit: int | None,
    ) -> None:
        self.dataset, self.split, self.episodes = dataset, split, list(episodes)
        shape, _ = dataset.column(COLUMN)
        self.views = shape[0] if len(shape) == 4 else 1
        self.size = shape[-3:-1]  # (H, W)
        self.origin = {"environment": dataset.header["environment"], "views": self.views}
        images = lengths * self.views
        self._ends = np.cumsum(images if limit is None else np.minimum(images, limit))

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.episodes else 0

    def read(self, indices: np.ndarray) -> np.ndarray:
        """See `Frames.read`. Each file is opened once, each row is unpacked once."""
        images = np.empty((len(indices), *self.size, 3), np.uint8)
        episodes = np.searchsorted(self._ends, indices, side="right")
        for episode in np.unique(episodes):
            (places,) = np.nonzero(episodes == episode)
            start = self._ends[episode - 1] if episode else 0
            rows, views = np.divmod(indices[places] - start, self.views)
            unique, place_of = np.unique(rows, return_inverse=True)
            found = self.dataset.read_rows(self.split, self.episodes[episode], COLUMN, unique)
            found = found.reshape(len(unique), self.views, *self.size, 3)
            images[places] = found[place_of, views]
        return images


def open_frames(
    data_dir: str, name: str, *, div: int, limit: int | None, holdout: float, size: int
) -> tuple[Frames, Frames]:
    """The training and the validation images of the dataset `name`.

    Args:
        div: use the first 1/`div` of the training episodes.
        limit: images per episode at most; None for all.
        holdout: share of those training episodes that is kept for validation instead of the
            validation split, the last ones; at least one if it is not 0.
        size: expected side of an image in pixels.

    Raises `UserError` if the data are missing, have no images, or images of another size.
    """
    dataset = _open(data_dir, name)
    shape, _ = dataset.column(COLUMN)
    if shape[-1] != CHANNELS:
        raise UserError(
            f"dataset {dataset} has images of {shape[-1]} channels and encoders are trained on "
            f"{CHANNELS} (RGB); collect others"
        )
    if shape[-3:-1] != (size, size):
        raise UserError(
            f"dataset {dataset} has frames of {shape[-3]} x {shape[-2]} pixels; "
            f"set encoder.image_size (now {size}) to their size, or collect others"
        )
    lengths = dataset.lengths("train", div)
    episodes = dataset.episodes("train")[: len(lengths)]
    kept = len(episodes) - (max(1, round(holdout * len(episodes))) if holdout else 0)
    train = DatasetFrames(dataset, "train", episodes[:kept], lengths[:kept], limit)
    if holdout:
        return train, DatasetFrames(dataset, "train", episodes[kept:], lengths[kept:], limit)
    return train, DatasetFrames(
        dataset, "val", dataset.episodes("val"), dataset.lengths("val"), limit
    )


def _open(data_dir: str, name: str) -> Dataset:
    """Open a dataset folder; an npz file, which is read in order only, must become one first."""
    file = Path(data_dir) / f"{name}.npz"
    if file.is_file() and not (Path(data_dir) / name).is_dir():
        raise UserError(
            f"{file} can only be read from its beginning, and images are drawn in any order; make "
            f"a folder of it once: `python -m datasets.convert import {file} {name} task=TASK`"
        )
    return Dataset.open(data_dir, name, ["obs=rgb"])
