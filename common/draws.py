"""What each update draws: the random numbers of update k are a function of (seed, k).

So no generator has to be stored or passed on, and several processes can draw the same batch without
a word.
"""

from collections.abc import Callable
from typing import Any

import torch

from common.buffer import Buffer
from common.device import seeded_generator
from common.prefetch import Prefetcher


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
