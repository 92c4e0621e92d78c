"""Updates in one process, or in a team that shares each batch."""

from typing import Any

import torch

from common.data.draws import Draws
from common.foundation.device import seeded_generator
from common.runs.checkpoint import flatten
from common.training.acceleration import EAGER, Acceleration, CapturedUpdate
from common.training.loop import Sums, add
from common.training.team import Team

CPU = torch.device("cpu")


class Updates:
    """All of an update in this process."""

    def __init__(
        self, agent: Any, draws: Draws, sums: Sums, acceleration: Acceleration = EAGER
    ) -> None:
        self.agent, self.draws = agent, draws
        self._sums = sums
        acceleration.apply(agent)
        self._update = CapturedUpdate(agent) if acceleration.cudagraphs else agent.update

    def run(self, step: int) -> None:
        """Update `step`, counted from 1."""
        batch, generator = self.draws(step)
        add(self._sums, self._update(batch, self.agent.draw_noise(batch, generator)))

    def sums(self) -> Sums:
        """Sums of the metrics since `reset`; all updates asked for are then complete."""
        return dict(self._sums)

    def reset(self) -> None:
        """Start the sums anew."""
        self._sums.clear()

    def close(self) -> None:
        """Let go of other processes, if any."""


class SharedUpdates(Updates):
    """All of an update on this process's share of its batch, with gradients averaged over a team.

    All processes draw the whole batch, which costs little, and keep their share of it. So together
    they compute what one process does, but for the order of sums and the draws of dropout.
    """

    def __init__(
        self, agent: Any, draws: Draws, sums: Sums, acceleration: Acceleration, team: Team
    ) -> None:
        super().__init__(agent, draws, sums, acceleration)
        self.team = team
        learned, _ = flatten(agent.state_dict())
        for tensor in learned.values():
            team.copy_from_main(tensor)

    def run(self, step: int) -> None:
        batch, generator = self.draws(step)
        noise = self.agent.draw_noise(batch, generator)
        share = self.team.share
        # Dropout draws from torch's own generator.
        seed = seeded_generator(CPU, self.draws.seed, step, self.team.rank).initial_seed()
        torch.manual_seed(seed)
        metrics = self._update(batch[share], noise[share])
        means = self.team.average(torch.stack(list(metrics.values())))
        add(self._sums, dict(zip(metrics, means.unbind(), strict=True)))
