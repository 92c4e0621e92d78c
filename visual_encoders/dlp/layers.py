"""Convolutional blocks of the DLP networks (spec: visual_encoders 2.1)."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

CONV_STD = 0.01  # standard deviation of every convolution's initial weights
NORM_EPS = 1e-4


def norm_groups(channels: int) -> int:
    """Groups of a normalisation: 4 or 5 if one divides the channels, as in the reference.

    Differs from the reference, which refuses other numbers: they get the largest divisor below.
    """
    return next(n for n in (4, 5, 3, 2, 1) if channels % n == 0)


class ConvBlock(nn.Module):
    """Replication padding, convolution without bias, group norm, ReLU, optionally size times two.

    (B, fan_in, H, W) -> (B, fan_out, H / stride, W / stride), twice that if `upsample`.
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        norm: bool = True,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            fan_in, fan_out, kernel, stride, kernel // 2, bias=False, padding_mode="replicate"
        )
        self.norm = nn.GroupNorm(norm_groups(fan_out), fan_out, NORM_EPS) if norm else None
        self.upsample = upsample

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        x = F.relu(x, inplace=True)
        if self.upsample:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return x


class Pyramid(nn.Module):
    """Three resolutions of two blocks each, then a 1x1 convolution: the key map.

    (B, fan_in, H, W) -> (B, fan_out, H / 4, W / 4).
    """

    def __init__(
        self, fan_in: int, channels: tuple[int, ...], fan_out: int, kernel: int = 3
    ) -> None:
        super().__init__()
        first, second, third = channels
        self.blocks = nn.Sequential(
            ConvBlock(fan_in, first, kernel),
            ConvBlock(first, first),
            ConvBlock(first, second, stride=2),
            ConvBlock(second, second),
            ConvBlock(second, third, stride=2),
            ConvBlock(third, third),
        )
        self.key_map = nn.Conv2d(third, fan_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.key_map(self.blocks(x))


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers with a ReLU after each, the last included: (..., widths[0]) -> (..., last)."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def initialise(module: nn.Module) -> None:
    """Convolutions of `module` ~ N(0, 0.01^2), their biases 0 (spec: visual_encoders 3.2)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=CONV_STD)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
