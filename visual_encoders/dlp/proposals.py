"""Proposals, the prior of positions: one per patch of the image (spec: visual_encoders 2.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visual_encoders.dlp.geometry import axis
from visual_encoders.dlp.layers import Pyramid
from visual_encoders.dlp.settings import REDUCTION, DLPSettings

SMALLEST_VARIANCE = 1e-6


@dataclass(frozen=True)
class Proposed:
    """Proposed positions (B, P, 2) in coordinates of the image, and their spread.

    `spread` (B, P, 3): variances of row and column, and their covariance, in units of the patch.
    """

    positions: Tensor
    spread: Tensor


class Proposals(nn.Module):
    """Spatial softmax over a heat map of each patch: (B, C, H, H) -> P positions."""

    def __init__(self, size: DLPSettings) -> None:
        super().__init__()
        self.patch = size.patch_size
        self.pyramid = Pyramid(size.cdim, size.prior_channels, 1)

    def forward(self, images: Tensor) -> Proposed:
        per_side = images.shape[-1] // self.patch
        patches = images.unflatten(3, (per_side, self.patch)).unflatten(2, (per_side, self.patch))
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)  # row-major: (B * P, C, p, p)
        logits = self.pyramid(patches).flatten(1)
        means, spread = _moments(logits.softmax(dim=-1).unflatten(1, (self.patch // REDUCTION, -1)))
        inside = (means + 1) * (0.5 * (self.patch - 1))  # pixels from the patch's first one
        pixels = inside.unflatten(0, (len(images), -1)) + self._origins(per_side, images)
        positions = pixels * (2 / (images.shape[-1] - 1)) - 1
        return Proposed(positions, spread.unflatten(0, (len(images), -1)))

    def _origins(self, per_side: int, like: Tensor) -> Tensor:
        """First pixel (row, column) of each patch: (P, 2)."""
        starts = torch.arange(per_side, device=like.device, dtype=like.dtype) * self.patch
        return torch.cartesian_prod(starts, starts)


def _moments(mass: Tensor) -> tuple[Tensor, Tensor]:
    """Means (N, 2) and variances with covariance (N, 3) of probabilities (N, S, S) over [-1, 1]."""
    nodes = axis(mass.shape[-1], mass)
    rows, columns = mass.sum(dim=2), mass.sum(dim=1)
    mean_row, mean_column = rows @ nodes, columns @ nodes
    spread = [
        (rows @ nodes.square() - mean_row.square()).clamp(min=SMALLEST_VARIANCE),
        (columns @ nodes.square() - mean_column.square()).clamp(min=SMALLEST_VARIANCE),
        (mass @ nodes) @ nodes - mean_row * mean_column,
    ]
    return torch.stack([mean_row, mean_column], dim=-1), torch.stack(spread, dim=-1)
