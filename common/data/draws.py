"""Draws of each update: the random numbers of update k are a function of (seed, k).

So no generator has to be stored or passed on, and several processes can draw the same batch without
a word.
"""

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from common.data.batches import Tree
from common.data.buffer import Buffer
from common.data.wants import Wants
from common.foundation.device import seeded_generator


class Draws:
    """The random numbers of each update, and the batch they choose.

    Args:
        buffer: training data. batch_size: samples per update. seed: of the run. wants: the law of
            batches.
    """

    def __init__(self, buffer: Buffer, batch_size: int, seed: int, wants: Wants) -> None:
        self.buffer, self.batch_size, self.seed, self.wants = buffer, batch_size, seed, wants

    def __call__(self, step: int) -> tuple[Tree, torch.Generator]:
        """Batch of update `step`, and the generator for what else the update draws."""
        generator = seeded_generator(self.buffer.obs.device, self.seed, step)
        return self.sample(generator), generator

    def sample(self, generator: torch.Generator) -> Tree:
        """A batch of what `generator` draws."""
        return self.wants.sample(self.buffer, self.batch_size, generator)


class FetchedDraws(Draws):
    """The same of data in main memory, for another device.

    A thread draws one update ahead, unless that would miss what comes to the data before it.

    Args:
        draws: of the data. device: where the batches go, and an update's other numbers are drawn.
    """

    def __init__(self, draws: Draws, device: torch.device) -> None:
        super().__init__(draws.buffer, draws.batch_size, draws.seed, draws.wants)
        self._draws, self._device = draws, device
        self._thread = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[Tree]] | None = None

    def __call__(self, step: int) -> tuple[Tree, torch.Generator]:
        if self._next is not None and self._next[0] == step:
            batch = self._next[1].result()
        else:
            batch = self._fetch(step)
        if not self.buffer.grows:
            self._next = step + 1, self._thread.submit(self._fetch, step + 1)
        generator = seeded_generator(self._device, self.seed, step, 1)
        return batch.to(self._device, non_blocking=True), generator

    def _fetch(self, step: int) -> Tree:
        batch, _ = self._draws(step)
        # A GPU copies by itself only from memory that cannot move.
        return batch.pin_memory(num_threads=0) if self._device.type == "cuda" else batch
