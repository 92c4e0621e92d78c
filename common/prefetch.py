"""Batches of data in main memory for a GPU: drawn, pinned and sent while it is still computing."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from common.buffer import Batch


class Prefetcher:
    """Batches of consecutive updates on `device`, the next one drawn by a thread meanwhile.

    Args:
        draw: the batch of an update, in main memory; a function of the update's number alone.
    """

    def __init__(self, draw: Callable[[int], Batch], device: torch.device) -> None:
        self._draw, self._device = draw, device
        self._thread = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[Batch]] | None = None

    def __call__(self, step: int) -> Batch:
        """Batch of update `step`; that of the next one is begun."""
        if self._next is not None and self._next[0] == step:
            batch = self._next[1].result()
        else:
            batch = self._fetch(step)
        self._next = step + 1, self._thread.submit(self._fetch, step + 1)
        return Batch(*(x.to(self._device, non_blocking=True) for x in vars(batch).values()))

    def _fetch(self, step: int) -> Batch:
        batch = self._draw(step)
        if self._device.type != "cuda":
            return batch
        # A GPU copies by itself only from memory that cannot move.
        return Batch(*(x.pin_memory() for x in vars(batch).values()))
