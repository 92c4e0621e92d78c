"""The background: what particles leave over, as one small vector (spec: visual_encoders 2.8, 2.9).

Letters: B images, C channels, H their side, K particles, D features of the background.
"""

import torch
from torch import Tensor, nn

from visual_encoders.dlp.distributions import Gaussian
from visual_encoders.dlp.geometry import axis
from visual_encoders.dlp.layers import ConvBlock, Pyramid, perceptron
from visual_encoders.dlp.settings import REDUCTION, DLPSettings

SEED = 8  # side of the map that a background is decoded from


def background_mask(positions: Tensor, on: Tensor, box: int, side: int) -> Tensor:
    """How much of each pixel no particle takes: 1 - clamp(sum of their boxes, 0, 1).

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
