"""Normalisation of observations by the statistics of the training data."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

EPSILON = 1e-6  # added to the variance
CLIP = 5.0  # standard deviations
CHUNK_NUMBERS = 1 << 24  # that are turned into double precision at a time
START_COUNT = 1e-6  # of rows that the statistics of no data stand for


def _no_rows() -> Tensor:
    return torch.zeros((), dtype=torch.float64)


@dataclass
class Normaliser:
    """Per-feature mean and variance (D,) over all entities and steps of the training data.

    The same for training and evaluation (docs/differences.md). Of no features (D = 0) it leaves
    everything as it is. `count` () is the number of entities seen, on the CPU.
    """

    mean: Tensor
    var: Tensor
    count: Tensor = field(default_factory=_no_rows)

    @classmethod
    def start(cls, features: int, device: torch.device) -> "Normaliser":
        """Mean 0 and variance 1, before there are data to `merge`."""
        count = torch.full((), START_COUNT, dtype=torch.float64)
        return cls(torch.zeros(features, device=device), torch.ones(features, device=device), count)

    @classmethod
    def fit(cls, obs: Tensor, chunk: int = 1 << 16) -> "Normaliser":
        """From all rows of a dataset (R, ..., D), `chunk` of them in double precision at a time.

        Or fewer, if that is more than `CHUNK_NUMBERS` numbers.
        """
        empty = (torch.zeros(obs.shape[-1], device=obs.device) for _ in range(2))
        normaliser = cls(*empty)
        normaliser.merge(obs, chunk)
        return normaliser

    def merge(self, obs: Tensor, chunk: int = 1 << 16) -> None:
        """Take in more rows (R, ..., D), as `fit` does; in place, for all who hold it.

        By the law of parallel variances (Chan et al. 1979): the same as of all rows at once.
        """
        count = obs[..., 0].numel()
        chunk = max(1, min(chunk, CHUNK_NUMBERS // max(1, obs[0].numel())))
        mean = sum(_sum_rows(part.double()) for part in obs.split(chunk)) / count
        squares = sum(_sum_rows((part.double() - mean).square()) for part in obs.split(chunk))
        total = self.count + count
        old, spread = (x.to(obs.device, torch.float64) for x in (self.mean, self.var))
        step = mean - old
        squares = squares + spread * self.count + step.square() * (self.count * count / total)
        self.mean.copy_(old + step * (count / total))
        self.var.copy_(squares / total)
        self.count.copy_(total)

    @property
    def state(self) -> dict[str, Tensor]:
        """Its statistics, from which it is made again."""
        return {"mean": self.mean, "var": self.var, "count": self.count}

    @classmethod
    def none(cls, device: torch.device) -> "Normaliser":
        """The one that leaves everything as it is."""
        return cls(torch.empty(0, device=device), torch.empty(0, device=device))

    @property
    def scales(self) -> bool:
        """True if it changes anything."""
        return self.mean.numel() > 0

    def __call__(self, obs: Tensor) -> Tensor:
        if not self.scales:
            return obs
        return ((obs - self.mean) / torch.sqrt(self.var + EPSILON)).clamp(-CLIP, CLIP)

    def inverse(self, obs: Tensor) -> Tensor:
        """Undo the scaling (what was clipped stays clipped)."""
        if not self.scales:
            return obs
        return obs * torch.sqrt(self.var + EPSILON) + self.mean

    def to(self, device: torch.device) -> "Normaliser":
        """The same there; on another device it knows nothing of later rows."""
        return Normaliser(self.mean.to(device), self.var.to(device), self.count)


def _sum_rows(x: Tensor) -> Tensor:
    """(R, ..., D) -> (D,)."""
    return x.flatten(0, -2).sum(dim=0)
