"""Acting to learn: uniform actions at first and now and then, noise on all (ECRL)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Exploration:
    """Amount of exploration in an episode, by its number in the run.

    Attributes:
        random_episodes: so many act by uniform actions alone.
        eps, sigma: probability of a uniform action, deviation of the noise that is added to any.
        decay: numbers of the episodes between which both fall linearly, to `share` of themselves.
    """

    random_episodes: int
    eps: float
    sigma: float
    decay: tuple[int, int]
    share: float

    def rates(self, episode: Tensor) -> tuple[Tensor, Tensor]:
        """eps and sigma of the episodes of these numbers: (R,) -> (R,) twice."""
        begin, end = self.decay
        fallen = ((episode - begin) / max(1, end - begin)).clamp(0, 1)
        left = 1 - (1 - self.share) * fallen
        eps = torch.where(episode < self.random_episodes, torch.ones_like(left), self.eps * left)
        return eps, self.sigma * left

    def draw(
        self, episode: Tensor, size: int, generators: list[torch.Generator]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Coins (R,), uniform actions (R, A) and noise (R, A) of one step.

        A coin that is true asks for the uniform action. Every environment draws the same numbers
        whatever they decide, from its own generator.
        """
        uniform = torch.stack([torch.rand(1 + size, generator=g) for g in generators])
        normal = torch.stack([torch.randn(size, generator=g) for g in generators])
        eps, sigma = self.rates(episode.cpu())
        return uniform[:, 0] < eps, uniform[:, 1:] * 2 - 1, normal * sigma[:, None]
