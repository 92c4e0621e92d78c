"""The IMPALA encoder of a state and a goal image (Espeholt et al. 2018).

Letters: K members of an ensemble, B batch, C channels of an image (three per view), F features.
The convolutions of all members are one grouped convolution.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.networks.layers import Linear

# Side of the last feature map. The reference's parameter counts belong to 8, which is what three
# poolings leave of 64 pixels; larger maps (16 of 128 pixels) are averaged down to it.
MAP_SIZE = 8


class Conv(nn.Module):
    """K 3x3 convolutions side by side: (B, K*C_in, H, W) -> (B, K*C_out, H, W).

    Weights and biases are U(-1/sqrt(fan_in), 1/sqrt(fan_in)), torch's default.
    """

    def __init__(self, members: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        bound = (9 * channels_in) ** -0.5
        weight = torch.empty(members, channels_out, channels_in, 3, 3)
        self.weight = nn.Parameter(nn.init.uniform_(weight, -bound, bound))
        bias = torch.empty(members, channels_out)
        self.bias = nn.Parameter(nn.init.uniform_(bias, -bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.flatten(0, 1), self.bias.flatten()
        return F.conv2d(x, weight, bias, padding=1, groups=len(self.weight))


class Stack(nn.Module):
    """Convolution, pooling to half the side, then a residual pair of convolutions."""

    def __init__(self, members: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.enter = Conv(members, channels_in, channels_out)
        self.first = Conv(members, channels_out, channels_out)
        self.second = Conv(members, channels_out, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.enter(x), kernel_size=3, stride=2, padding=1)
        return x + self.second(F.relu(self.first(x)))


class ImagePair(nn.Module):
    """Features of a state and a goal image: (B, C, H, W) uint8 twice -> (K, B, F).

    Args:
        channels: C of one image. stacks: channels after each stack. width: F.
    """

    def __init__(self, members: int, channels: int, stacks: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.members, self.width = members, width
        parts = (Stack(members, *ends) for ends in pairwise((2 * channels, *stacks)))
        self.stacks = nn.Sequential(*parts)
        self.out = Linear(members, stacks[-1] * MAP_SIZE**2, width)

    def forward(self, obs: Tensor, goal: Tensor) -> Tensor:
        x = torch.cat([obs, goal], dim=1).float() / 255
        x = F.adaptive_avg_pool2d(self.stacks(x.repeat(1, self.members, 1, 1)), MAP_SIZE)
        x = F.relu(x).view(len(x), self.members, -1).transpose(0, 1)  # (K, B, channels * side^2)
        return F.gelu(self.out(x))
