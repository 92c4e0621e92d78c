"""Which images an update sees: a function of the seed and the update's number alone."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from common.errors import UserError
from common.processes import signals_blocked
from common.team import check_shares
from visual_encoders.frames import Frames

PREFETCH = 4  # batches that each reading process keeps ready


class Batches(Dataset):
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


class ValidationBatches(Dataset):
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


def to_float(images: Tensor, device: torch.device) -> Tensor:
    """uint8 images on `device`, as float32 in [0, 1]."""
    return images.to(device, non_blocking=True).float() / 255


def read_ahead(batches: Dataset, numbers: range, workers: int, pin: bool) -> Iterator[Tensor]:
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
