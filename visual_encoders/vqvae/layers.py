"""Building blocks of the VQ-VAE; attribute names are those of checkpoints.

Letters: B images, C channels, H and W height and width of a feature map.
"""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COMMITMENT = 0.25  # weight of pulling latents towards their codes
GROUPS = 32  # of the normalisation; every width is a multiple of it


@dataclass(frozen=True)
class Codes:
    """A quantised latent.

    Attributes:
        latent: (B, E, h, w) the codes, with the gradient of what was quantised (straight-through).
        indices: (B, h, w) int64, which code.
        loss: scalar, 0.25 mean (stop(e) - z)^2 + mean (e - stop(z))^2.
    """

    latent: Tensor
    indices: Tensor
    loss: Tensor


class Quantiser(nn.Module):
    """N codes of E numbers, trained by gradients: no moving averages, no restarts.

    How many codes are in use is not regulated, so the trainer logs it.
    """

    def __init__(self, codes: int, size: int) -> None:
        super().__init__()
        book = torch.empty(codes, size).uniform_(-1.0 / codes, 1.0 / codes)
        self.embedding = nn.ParameterDict({"weight": book})

    @property
    def book(self) -> Tensor:
        """The codes, (N, E)."""
        return self.embedding["weight"]

    def forward(self, z: Tensor) -> Codes:
        """Quantise z (B, E, h, w)."""
        rows = z.movedim(1, -1)  # (B, h, w, E)
        indices = self.nearest(rows)
        code = F.embedding(indices, self.book)
        pull = F.mse_loss(rows, code.detach())
        loss = COMMITMENT * pull + F.mse_loss(code, rows.detach())
        latent = rows + (code - rows).detach()
        return Codes(latent.movedim(-1, 1), indices, loss)

    @torch.no_grad()
    def nearest(self, rows: Tensor) -> Tensor:
        """Index of the nearest code in squared distance of each row: (..., E) -> (...)."""
        distance = rows.square().sum(-1, keepdim=True) + self.book.square().sum(-1)
        return (distance - 2 * rows @ self.book.T).argmin(-1)


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation, 32 groups, eps 1e-6."""
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


def conv3(channels: int, out: int) -> nn.Conv2d:
    """3x3 convolution that keeps the size."""
    return nn.Conv2d(channels, out, 3, padding=1)


class ResidualBlock(nn.Module):
    """norm, swish, conv, norm, swish, dropout, conv; plus the input, (B, C, H, W)."""

    def __init__(self, channels: int, out: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = norm(channels)
        self.conv1 = conv3(channels, out)
        self.norm2 = norm(out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv3(out, out)
        self.nin_shortcut = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(self.dropout(F.silu(self.norm2(hidden))))
        return self.nin_shortcut(x) + hidden


class Attention(nn.Module):
    """Self-attention of one head over all positions of (B, C, H, W), scale 1/sqrt(C), residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (layer(normed).flatten(2).mT for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)  # (B, H W, C)
        return x + self.proj_out(mixed.mT.reshape(x.shape))


class Downsample(nn.Module):
    """Half the size: a zero row below and a zero column at the right, then a 3x3 conv, stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the size: nearest neighbours, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention where `attention` is set."""

    def __init__(
        self, channels: int, out: int, blocks: int, *, attention: bool, dropout: float
    ) -> None:
        super().__init__()
        widths = [channels] + [out] * blocks
        self.block = nn.ModuleList(
            ResidualBlock(before, after, dropout) for before, after in pairwise(widths)
        )
        self.attn = nn.ModuleList(Attention(out) for _ in range(blocks if attention else 0))

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        return x


def middle(channels: int, dropout: float) -> nn.Sequential:
    """The blocks between going down and going up: residual, attention, residual."""
    return nn.Sequential(
        OrderedDict(
            block_1=ResidualBlock(channels, channels, dropout),
            attn_1=Attention(channels),
            block_2=ResidualBlock(channels, channels, dropout),
        )
    )
