"""Cutting glimpses out of images and placing patches on a canvas (spec: visual_encoders 2.3, 2.10).

Coordinates lie in [-1, 1], index 0 is the row and 1 the column; -1 is the centre of the first pixel
and 1 that of the last. Letters: B images, C channels, H their side, M points, G side of a glimpse.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-9  # added to the size of what is placed


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
    weights = _hat(offsets / (sizes.unsqueeze(-1) + TINY), patches.shape[-1])  # (B, M, 2, H, G)
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
