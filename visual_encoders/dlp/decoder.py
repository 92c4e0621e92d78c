"""From particles to pictures: decoded objects, blended over a background (spec: 2.9, 2.10).

Letters: B images, C channels, H their side, K particles, G side of a patch, F appearance features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visual_encoders.dlp.distributions import normal_like
from visual_encoders.dlp.geometry import place_patches
from visual_encoders.dlp.layers import ConvBlock, perceptron
from visual_encoders.dlp.particles import HIDDEN, KEY_CHANNELS, Particles
from visual_encoders.dlp.settings import REDUCTION, DLPSettings

ALPHA_NOISE = 0.1  # standard deviation, in noisy epochs
ORDER_EPS = 1e-5  # keeps pixels without any particle from dividing by zero


class ObjectDecoder(nn.Module):
    """Appearance features (B, K, F) -> patches (B, K, 1 + C, G, G): alpha, then colours."""

    def __init__(self, size: DLPSettings) -> None:
        super().__init__()
        self.seed_side = size.glimpse_size // REDUCTION
        seed = KEY_CHANNELS * self.seed_side**2
        self.seed = perceptron(size.learned_feature_dim, HIDDEN, seed)
        first, second, third = size.obj_dec_channels
        self.blocks = nn.Sequential(
            ConvBlock(KEY_CHANNELS, first, upsample=True),
            ConvBlock(first, second, upsample=True),
            ConvBlock(second, third),
        )
        self.out = nn.Conv2d(third, 1 + size.cdim, 1)

    def forward(self, features: Tensor) -> Tensor:
        seed = self.seed(features.flatten(0, 1)).unflatten(1, (-1, self.seed_side, self.seed_side))
        return self.out(self.blocks(seed)).sigmoid().unflatten(0, features.shape[:2])


@dataclass(frozen=True)
class Picture:
    """A decoded image and its parts.

    Attributes:
        image: (B, C, H, H), `foreground` over `background` of the same shape.
        masks: (B, K, H, H), how much of a pixel each particle takes.
    """

    image: Tensor
    foreground: Tensor
    background: Tensor
    masks: Tensor


def compose(
    patches: Tensor,
    particles: Particles,
    background: Tensor,
    generator: torch.Generator | None = None,
) -> Picture:
    """Blend the placed patches by depth, softly, over the background.

    With A_k the placed alpha, t_k transparency and d_k depth, smaller is nearer:
    alpha_k = t_k A_k; w_k = alpha_k sigmoid(-d_k), over their sum; mask_k = w_k alpha_k.

    Args:
        patches: (B, K, 1 + C, G, G).
        background: (B, C, H, H).
        generator: for noise on A_k, in noisy epochs only.
    """
    side = background.shape[-1]
    canvases = place_patches(patches, particles.position, particles.scale.sigmoid(), side)
    alpha, colours = canvases[..., 0, :], canvases[..., 1:, :]  # (B, K, H, H), (B, K, H, C, H)
    if generator is not None:  # without noise, means of values in [0, 1] need no clamp
        alpha = (alpha + ALPHA_NOISE * normal_like(alpha, generator)).clamp(0, 1)
    alpha = particles.on.unsqueeze(-1) * alpha
    weights = alpha * torch.sigmoid(-particles.depth).unsqueeze(-1)
    masks = weights / (weights.sum(dim=1, keepdim=True) + ORDER_EPS) * alpha
    foreground = (masks.unsqueeze(3) * colours).sum(dim=1).transpose(1, 2)
    left_over = 1 - masks.sum(dim=1).unsqueeze(1)
    return Picture(left_over * background + foreground, foreground, background, masks)
