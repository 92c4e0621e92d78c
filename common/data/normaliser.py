"""Normalisation of observations by the statistics of the training data."""

from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-6  # added to the variance
CLIP = 5.0  # standard deviations
CHUNK_NUMBERS = 1 << 24  # that are turned into double precision at a time


@dataclass
class Normaliser:
    """Per-feature mean and variance (D,) over all entities and steps of the training data.

    The same for training and evaluation (docs/differences.md). Of no features (D = 0) it leaves
    everything as it is.
    """

    mean: Tensor
    var: Tensor

    @classmethod
    def fit(cls, obs: Tensor, chunk: int = 1 << 16) -> "Normaliser":
        """From all rows of a dataset (R, ..., D), `chunk` of them in double precision at a time.

        Or fewer, if that is more than `CHUNK_NUMBERS` numbers.
        """
        count = obs[..., 0].numel()
        chunk = max(1, min(chunk, CHUNK_NUMBERS // max(1, obs[0].numel())))
        total = sum(_sum_rows(part.double()) for part in obs.split(chunk))
        mean = total / count
        squares = sum(_sum_rows((part.double() - mean).square()) for part in obs.split(chunk))
        return cls(mean.float(), (squares / count).float())

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
        return Normaliser(self.mean.to(device), self.var.to(device))


def _sum_rows(x: Tensor) -> Tensor:
    """(R, ..., D) -> (D,)."""
    return x.flatten(0, -2).sum(dim=0)
