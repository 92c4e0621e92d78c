"""An affine map per feature, taken from data once and stored with an agent."""

import torch
from torch import Tensor, nn

EPSILON = 1e-6  # added to a variance


class Scaling(nn.Module):
    """y = (x - center) / scale for each of D features, the last axis; at first the identity."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.center) / self.scale

    def inverse(self, y: Tensor) -> Tensor:
        """x of y."""
        return y * self.scale + self.center

    def fit_limits(self, low: Tensor, high: Tensor) -> None:
        """Map [low, high] (D,) to [-1, 1]; a constant feature has limits 1 below and above it."""
        self.center.copy_((low + high) / 2)
        self.scale.copy_(torch.where(high > low, (high - low) / 2, 1.0))

    def fit_moments(self, mean: Tensor, var: Tensor) -> None:
        """Map to mean 0 and variance 1."""
        self.center.copy_(mean)
        self.scale.copy_((var + EPSILON).sqrt())
