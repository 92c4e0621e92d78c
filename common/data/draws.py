"""What each update draws: the random numbers of update k are a function of (seed, k).

So no generator has to be stored or passed on, and several processes can draw the same batch without
a word.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from common.data.batches import Batch
from common.data.buffer import Buffer
from common.foundation.device import seeded_generator


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


class Draws:
    """The random numbers of each update, and the batch they choose.

    Args:
        buffer: training data. batch_size: samples per update. seed: of the run. sampler: what
            draws a batch of them, see `Agent.sampler`.
    """

    def __init__(
        self,
        buffer: Buffer,
        batch_size: int,
        seed: int,
        sampler: Callable[[Buffer, int, torch.Generator], Any] = Buffer.sample,
    ) -> None:
        self.buffer, self.batch_size, self.seed = buffer, batch_size, seed
        self.sampler = sampler

    def __call__(self, step: int) -> tuple[Any, torch.Generator]:
        """Batch of update `step`, and the generator for what else the update draws."""
        generator = seeded_generator(self.buffer.obs.device, self.seed, step)
        return self.sample(generator), generator

    def sample(self, generator: torch.Generator) -> Any:
        """A batch of what `generator` draws."""
        return self.sampler(self.buffer, self.batch_size, generator)


class FetchedDraws(Draws):
    """The same of data in main memory, for another device; batches are fetched one update ahead.

    Args:
        draws: of the data. device: where the batches go, and an update's other numbers are drawn.
    """

    def __init__(self, draws: Draws, device: torch.device) -> None:
        super().__init__(draws.buffer, draws.batch_size, draws.seed, draws.sampler)
        self._device = device
        self._batches = Prefetcher(lambda step: draws(step)[0], device)

    def __call__(self, step: int) -> tuple[Any, torch.Generator]:
        return self._batches(step), seeded_generator(self._device, self.seed, step, 1)
