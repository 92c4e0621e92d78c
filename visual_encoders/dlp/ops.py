"""Distributions of particles, and their geometry in images."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 1e-5  # of the parameters of a Beta; also inside the arguments of its KL
SMALLEST_SIZE = 1e-9  # added to the size of what is placed


@dataclass(frozen=True)
class Gaussian:
    """Independent Gaussians: mean and log-variance of equal shape (..., D)."""

    mean: Tensor
    logvar: Tensor

    def draw(self, generator: torch.Generator | None) -> Tensor:
        """A reparameterised sample; the mean without a generator."""
        if generator is None:
            return self.mean
        return self.mean + torch.exp(0.5 * self.logvar) * normal_like(self.mean, generator)

    def kl(self, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """KL(self || N(mean, std^2)) of each number: (..., D)."""
        ratio = torch.exp(self.logvar) / std**2
        distance = (self.mean - mean).square() / std**2
        return 0.5 * (ratio + distance - 1 - self.logvar) + math.log(std)

    def select(self, index: Tensor) -> "Gaussian":
        """The rows (B, K) of (B, P, D)."""
        return Gaussian(take(self.mean, index), take(self.logvar, index))


@dataclass(frozen=True)
class Beta:
    """Beta distributions with parameters a and b of equal shape."""

    a: Tensor
    b: Tensor

    @classmethod
    def from_logs(cls, logs: Tensor) -> "Beta":
        """(..., 2) -> parameters (..., 1).

        Differs from the reference, which replaces NaN by 0.01: one here goes on into the loss.
        """
        a, b = logs.exp().clamp(min=SMALLEST).split(1, dim=-1)
        return cls(a, b)

    def draw(self, generator: torch.Generator | None) -> Tensor:
        """As of `Gaussian`."""
        if generator is None:
            return self.a / (self.a + self.b)
        return _BetaSample.apply(self.a, self.b, generator)

    def kl(self, a: float, b: float) -> Tensor:
        """KL(self || Beta(a, b)) of each, with the reference's small number in every argument."""
        psi_a, psi_b, psi_sum = (
            torch.digamma(x + SMALLEST) for x in (self.a, self.b, self.a + self.b)
        )
        log_prior, log_posterior = (
            log(x + SMALLEST) + log(y + SMALLEST) - log(x + y + SMALLEST)
            for log, x, y in ((math.lgamma, a, b), (torch.lgamma, self.a, self.b))
        )
        shift_a, shift_b = self.a - a, self.b - b
        shifts = shift_a * psi_a + shift_b * psi_b - (shift_a + shift_b) * psi_sum
        return log_prior - log_posterior + shifts

    def select(self, index: Tensor) -> "Beta":
        """The rows (B, K) of (B, P, 1)."""
        return Beta(take(self.a, index), take(self.b, index))


class _BetaSample(torch.autograd.Function):
    """Beta samples with implicit gradients, as `torch.distributions.Beta`, from a generator.

    A Beta is a Dirichlet of two parts; torch's own class draws from the global generator only.
    """

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, generator: torch.Generator) -> Tensor:
        both = torch.stack([a, b], dim=-1)
        sample = torch._sample_dirichlet(both, generator=generator)
        ctx.save_for_backward(sample, both)
        return sample[..., 0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        sample, both = ctx.saved_tensors
        total = both.sum(dim=-1, keepdim=True).expand_as(both)
        # How the first part moves with either parameter: x_0 and x_1 sum to one, and raising b
        # moves x_1 by slope[1] * (1 - x_1) = slope[1] * x_0, all of it taken from x_0.
        slope = torch._dirichlet_grad(sample, both, total)
        first, second = sample.unbind(dim=-1)
        slope_a, slope_b = slope.unbind(dim=-1)
        return gradient * slope_a * second, -gradient * slope_b * first, None


def normal_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal draws of the shape and on the device of `x`, where the generator must be."""
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of a set: (B, P, D), indices (B, K) -> (B, K, D)."""
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def axis(nodes: int, like: Tensor) -> Tensor:
    """Coordinates of `nodes` pixels in a row: (nodes,)."""
    return torch.linspace(-1, 1, nodes, device=like.device, dtype=like.dtype)


def cut_glimpses(images: Tensor, centres: Tensor, sizes: Tensor, side: int) -> Tensor:
    """Sample a square window around each centre, bilinearly, with zeros outside of the image.

    All windows of an image are one tall grid over it, so the image is not copied for each.

    Args:
        images: (B, C, H, H).
        centres: (B, M, 2).
        sizes: (B, M, 2), or anything that broadcasts; side of a window over that of the image.
        side: G.

    Returns:
        (B, M, C, G, G).
    """
    steps = axis(side, centres)
    rows, columns = (centres.unsqueeze(-1) + sizes.unsqueeze(-1) * steps).unbind(dim=2)  # (B, M, G)
    grid = torch.stack(  # grid_sample wants the column first
        torch.broadcast_tensors(columns.unsqueeze(2), rows.unsqueeze(3)), dim=-1
    )
    tall = F.grid_sample(images, grid.flatten(1, 2), align_corners=True)  # (B, C, M * G, G)
    return tall.unflatten(2, (-1, side)).transpose(1, 2)


def place_patches(patches: Tensor, centres: Tensor, sizes: Tensor, side: int) -> Tensor:
    """Put each patch on an empty canvas of its own, the inverse of `cut_glimpses`.

    A pixel p of the canvas samples the patch at (p - centre) / size per axis, bilinearly and with
    zeros outside. Bilinear weights are a product of one per axis, so this is two matrix products.

    Args:
        patches: (B, M, C, G, G).
        centres, sizes: (B, M, 2).
        side: H.

    Returns:
        (B, M, H, C, H): row, channel, column.
    """
    offsets = axis(side, centres) - centres.unsqueeze(-1)  # (B, M, 2, H)
    places = offsets / (sizes.unsqueeze(-1) + SMALLEST_SIZE)
    weights = _hat(places, patches.shape[-1])  # (B, M, 2, H, G)
    vertical, horizontal = weights.unbind(dim=2)
    channels = patches.shape[2]
    stretched = vertical @ patches.transpose(2, 3).flatten(3)  # (B, M, H, C * G)
    stretched = stretched.unflatten(3, (channels, -1)).flatten(2, 3)  # (B, M, H * C, G)
    return (stretched @ horizontal.transpose(-1, -2)).unflatten(2, (side, channels))


def _hat(points: Tensor, nodes: int) -> Tensor:
    """Linear interpolation weights of `nodes` on [-1, 1] at points (...): (..., nodes).

    A node's weight falls from 1 to 0 within one step; beyond the last node there is nothing.
    """
    positions = (points + 1) * (0.5 * (nodes - 1))
    steps = torch.arange(nodes, device=points.device, dtype=points.dtype)
    return (1 - (positions.unsqueeze(-1) - steps).abs()).clamp(min=0)
