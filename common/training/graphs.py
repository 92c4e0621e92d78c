"""Updates captured in CUDA graphs."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from common.data.draws import Draws
from common.foundation.device import generator_seed
from common.training.acceleration import WARM_UP, Acceleration, aside, capture
from common.training.updates import Sums, Updates, add


class GraphUpdates(Updates):
    """Several updates, their batches included, as one CUDA graph; for data on the GPU.

    `run` gathers updates until there are `count`, which one launch then computes; `sums` computes
    what is left of them one by one. The first ones run as they are, see `CapturedUpdate`. Draws
    are those of `Updates`: each update of the graph has a generator, seeded for it before a replay.
    """

    def __init__(
        self, agent: Any, draws: Draws, sums: Sums, acceleration: Acceleration, count: int
    ) -> None:
        super().__init__(agent, draws, sums, replace(acceleration, cudagraphs=False))
        device = agent.context.device
        self._stream = torch.cuda.Stream(device)
        self._generators = [torch.Generator(device) for _ in range(count)]
        self._waiting: list[int] = []  # updates asked for and not computed yet
        self._done = 0  # updates without a graph
        self._graph: Any = None

    def run(self, step: int) -> None:
        self._waiting.append(step)
        if self._done < WARM_UP:
            self._finish()
        elif len(self._waiting) == len(self._generators):
            self._replay()

    def sums(self) -> Sums:
        self._finish()
        return super().sums()

    def reset(self) -> None:
        """Start the sums anew, in place: the graph adds to them where they are."""
        self._finish()
        for total in self._sums.values():
            total.zero_()

    def _finish(self) -> None:
        for step in self._waiting:
            aside(self._stream, partial(super().run, step))
            self._done += 1
        self._waiting.clear()

    def _replay(self) -> None:
        for generator, step in zip(self._generators, self._waiting, strict=True):
            generator.manual_seed(generator_seed(self.draws.seed, step))
        if self._graph is None:
            self._graph, _ = capture(self._stream, self._compute, self._generators)
        self._graph.replay()
        self._waiting.clear()

    def _compute(self) -> None:
        for generator in self._generators:
            batch = self.draws.sample(generator)
            add(self._sums, self.agent.update(batch, self.agent.draw_noise(batch, generator)))
