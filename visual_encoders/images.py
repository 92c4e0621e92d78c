"""Training images of encoders, read in any order and put into batches.

Letters: N images of a split, V views of a frame, H and W pixels, T rows of an episode.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from common.foundation.errors import UserError
from common.foundation.processes import signals_blocked
from common.runs.identity import dataset_source
from common.training.team import check_shares
from datasets.store import Dataset
from visual_encoders.base import CHANNELS

COLUMN = "observations"
PREFETCH = 4  # batches that each reading process keeps ready


class Frames:
    """The N images of some episodes of a dataset folder; nothing is held in memory. Picklable.

    Image f of an episode is view f mod V of row f div V, as in the reference's folders.

    Args:
        episodes: their indices in `split`.
        lengths: rows of each (E,).
        limit: only the first `limit` images of an episode count; None for all.
        div: the episodes are some of the first 1/`div` of the split.

    Attributes:
        origin: where they come from, as an encoder's `hparams.json` is to say it.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        episodes: Sequence[int],
        lengths: np.ndarray,
        limit: int | None,
        div: int = 1,
    ) -> None:
        self.dataset, self.split, self.episodes = dataset, split, list(episodes)
        self.div = div
        shape, _ = dataset.column(COLUMN)
        self.views = shape[0] if len(shape) == 4 else 1
        self.size = shape[-3:-1]  # (H, W)
        self.origin = {"environment": dataset.header["environment"], "views": self.views}
        images = lengths * self.views
        self._ends = np.cumsum(images if limit is None else np.minimum(images, limit))

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.episodes else 0

    def source(self) -> dict[str, Any]:
        """Identity of the episodes, see `common.runs.identity`."""
        return dataset_source(self.dataset, [COLUMN], self.split, self.div)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Images number `indices` (n,) as (n, H, W, 3) uint8.

        Each file is opened once, each row is unpacked once.
        """
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
    train = Frames(dataset, "train", episodes[:kept], lengths[:kept], limit, div)
    if holdout:
        return train, Frames(dataset, "train", episodes[kept:], lengths[kept:], limit, div)
    return train, Frames(dataset, "val", dataset.episodes("val"), dataset.lengths("val"), limit)


def _open(data_dir: str, name: str) -> Dataset:
    """Open a dataset folder; an npz file, which is read in order only, must become one first."""
    file = Path(data_dir) / f"{name}.npz"
    if file.is_file() and not (Path(data_dir) / name).is_dir():
        raise UserError(
            f"{file} can only be read from its beginning, and images are drawn in any order; make "
            f"a folder of it once: `python -m datasets.convert import {file} {name} task=TASK`"
        )
    return Dataset.open(data_dir, name, ["obs=rgb"])


class Batches(TorchDataset):
    """Batches of `frames`; item u is this process's share of batch u, (B / processes, 3, S, S).

    In training, images come in random order without repetition, another one in each pass; what
    does not fill the last batch of a pass is left out. Nothing is remembered between items, so a
    run continues anywhere.

    Args:
        batch_size: images of a batch, of all processes together.
        seed: of the order.
        rank, processes: which share of each batch is read here, of how many.
    """

    def __init__(
        self, frames: Frames, batch_size: int, seed: int, rank: int = 0, processes: int = 1
    ) -> None:
        check_shares(batch_size, "encoder.batch_size", processes)
        if len(frames) < batch_size:
            raise UserError(
                f"the data have {len(frames)} training images, fewer than "
                f"encoder.batch_size={batch_size}; lower it"
            )
        self.frames, self.batch_size, self.seed = frames, batch_size, seed
        self.share = slice(rank, None, processes)
        self.per_pass = len(frames) // batch_size
        self._order: tuple[int, np.ndarray] | None = None  # of one pass

    def __getitem__(self, update: int) -> Tensor:
        number, slot = divmod(update, self.per_pass)
        order = self._order_of(number)
        chosen = order[slot * self.batch_size : (slot + 1) * self.batch_size][self.share]
        return to_tensor(self.frames.read(chosen))

    def _order_of(self, number: int) -> np.ndarray:
        if self._order is None or self._order[0] != number:
            rng = np.random.default_rng([self.seed, number])
            self._order = number, rng.permutation(len(self.frames))
        return self._order[1]


class ValidationBatches(TorchDataset):
    """The same images each time, in order; item i is this process's share of batch i.

    Args:
        count: images drawn once from the seed; None for all. Else as for `Batches`.
    """

    def __init__(
        self,
        frames: Frames,
        count: int | None,
        batch_size: int,
        seed: int,
        rank: int,
        processes: int,
    ) -> None:
        if not len(frames):
            raise UserError(
                "the data have no validation images; set encoder.holdout=0.1 to keep a tenth of "
                "the training episodes for validation"
            )
        self.frames, self.batch_size = frames, batch_size
        self.share = slice(rank, None, processes)
        self.chosen = np.arange(len(frames))
        if count is not None and count < len(frames):
            drawn = np.random.default_rng(seed).choice(len(frames), count, replace=False)
            self.chosen = np.sort(drawn)

    def __len__(self) -> int:
        return -(-len(self.chosen) // self.batch_size)

    def __getitem__(self, i: int) -> Tensor:
        batch = self.chosen[i * self.batch_size : (i + 1) * self.batch_size]
        return to_tensor(self.frames.read(batch[self.share]))

    def examples(self, count: int) -> Tensor:
        """Some images (n, 3, S, S) from all over the validation images, at most `count`."""
        places = np.linspace(0, len(self.chosen) - 1, min(count, len(self.chosen)))
        return to_tensor(self.frames.read(self.chosen[places.astype(int)]))


def to_tensor(images: np.ndarray) -> Tensor:
    """(n, H, W, 3) -> (n, 3, H, W), uint8."""
    return torch.from_numpy(images).movedim(-1, 1).contiguous()


def read_ahead(batches: TorchDataset, numbers: range, workers: int, pin: bool) -> Iterator[Tensor]:
    """Items `numbers` of `batches` in order, read by `workers` processes ahead of their use.

    Args:
        pin: put them into memory from which a GPU copies faster.
    """
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=PREFETCH if workers else None,
    )
    with signals_blocked():
        iterator = iter(loader)
    return iterator
