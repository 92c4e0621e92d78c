"""From particles to pictures: decoded objects, blended over a background.

Letters: B images, C channels, H their side, K particles, G side of a patch, F appearance features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visual_encoders.dlp.encoders import (
    HIDDEN,
    KEY_CHANNELS,
    ConvBlock,
    Particles,
    Pyramid,
    perceptron,
)
from visual_encoders.dlp.ops import Gaussian, axis, normal_like, place_patches
from visual_encoders.dlp.settings import REDUCTION, DLPSettings

SEED = 8  # side of the map that a background is decoded from
ALPHA_NOISE = 0.1  # standard deviation, in noisy epochs
ORDER_EPS = 1e-5  # keeps pixels without any particle from dividing by zero


def background_mask(positions: Tensor, on: Tensor, box: int, side: int) -> Tensor:
    """Share of each pixel that no particle takes: 1 - clamp(sum of their boxes, 0, 1).

    A particle's box has `box` pixels around its position, whatever its scale, and the height `on`.

    Args:
        positions: (B, K, 2). on: (B, K, 1). box: side of a box. side: H.

    Returns:
        (B, 1, H, H).
    """
    distance = axis(side, positions) - positions.unsqueeze(-1)  # (B, K, 2, H)
    pixel = torch.round((distance + 1) * (0.5 * (side - 1)))
    first = (side - box) // 2
    inside = ((pixel >= first) & (pixel < first + box)).to(positions.dtype)
    rows, columns = inside.unbind(dim=2)
    covered = (rows * on).transpose(1, 2) @ columns  # (B, H, H)
    return 1 - covered.clamp(0, 1).unsqueeze(1)


class BackgroundEncoder(nn.Module):
    """Images with particles masked out (B, C, H, H) -> background, Gaussian (B, D).

    Its key map has as many channels as particles were kept in training, a choice of the reference.
    """

    def __init__(self, size: DLPSettings) -> None:
        super().__init__()
        keys = size.n_kp_enc * (size.image_size // REDUCTION) ** 2
        self.pyramid = Pyramid(size.cdim, size.enc_channels, size.n_kp_enc, kernel=7)
        self.hidden = perceptron(keys, 256, 128)
        self.code = nn.Linear(128, 2 * size.bg_learned_feature_dim)

    def forward(self, images: Tensor) -> Gaussian:
        keys = self.pyramid(images).flatten(1)
        return Gaussian(*self.code(self.hidden(keys)).chunk(2, dim=-1))


class BackgroundDecoder(nn.Module):
    """Background code (B, D) -> images (B, C, H, H)."""

    def __init__(self, size: DLPSettings) -> None:
        super().__init__()
        channels = max(size.n_kp_enc, SEED)
        doublings = (size.image_size // REDUCTION // SEED).bit_length() - 1
        self.seed = perceptron(size.bg_learned_feature_dim, 64, 128, 256, 512, channels * SEED**2)
        self.grow = nn.Sequential(
            *(ConvBlock(channels, channels, upsample=True) for _ in range(doublings))
        )
        first, second, third = size.bg_dec_channels
        self.blocks = nn.Sequential(
            ConvBlock(channels, first, norm=False, upsample=True),
            ConvBlock(first, second, upsample=True),
            ConvBlock(second, third),
        )
        self.out = nn.Conv2d(third, size.cdim, 1)

    def forward(self, code: Tensor) -> Tensor:
        seed = self.seed(code).unflatten(1, (-1, SEED, SEED))
        return self.out(self.blocks(self.grow(seed))).sigmoid()


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
