"""From images to particles: layers, proposals, attributes, appearance."""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visual_encoders.dlp.ops import Beta, Gaussian, axis
from visual_encoders.dlp.settings import EXPLICIT, REDUCTION, DLPSettings

CONV_STD = 0.01  # standard deviation of every convolution's initial weights
NORM_EPS = 1e-4
SMALLEST_VARIANCE = 1e-6
KEY_CHANNELS, WIDTH, HIDDEN = 32, 128, 256  # of the networks on glimpses


@dataclass(frozen=True)
class Proposed:
    """Proposed positions (B, P, 2) in coordinates of the image, and their spread.

    `spread` (B, P, 3): variances of row and column, and their covariance, in units of the patch.
    """

    positions: Tensor
    spread: Tensor


@dataclass(frozen=True)
class Attributes:
    """Posteriors of M particles' attributes.

    offset (B, M, 2) from where the glimpse was taken, scale (B, M, 2) before its sigmoid, depth
    (B, M, 1) and transparency `on` (B, M, 1).
    """

    offset: Gaussian
    scale: Gaussian
    depth: Gaussian
    on: Beta

    def select(self, index: Tensor) -> "Attributes":
        """The particles at indices (B, K)."""
        parts = (self.offset, self.scale, self.depth, self.on)
        return Attributes(*(part.select(index) for part in parts))


@dataclass(frozen=True)
class Particles:
    """Values: position and scale logit (B, K, 2), depth and on (B, K, 1), features (B, K, F).

    `rows` is how agents see them.
    """

    position: Tensor
    scale: Tensor
    depth: Tensor
    on: Tensor
    features: Tensor

    @classmethod
    def from_rows(cls, rows: Tensor) -> "Particles":
        """(B, K, 6 + F) -> particles."""
        return cls(*rows.split([2, 2, 1, 1, rows.shape[-1] - EXPLICIT], dim=-1))

    def rows(self) -> Tensor:
        """Rows of y, x, scale logits of y and x, depth, transparency, features: (B, K, 6 + F)."""
        return torch.cat([self.position, self.scale, self.depth, self.on, self.features], dim=-1)


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
    """Convolutions of `module` ~ N(0, 0.01^2), their biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=CONV_STD)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


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


class GlimpseTrunk(nn.Module):
    """Glimpses (B, M, C, G, G) -> features (B, M, 128)."""

    def __init__(self, size: DLPSettings) -> None:
        super().__init__()
        keys = KEY_CHANNELS * (size.glimpse_size // REDUCTION) ** 2
        self.pyramid = Pyramid(size.cdim, size.prior_channels, KEY_CHANNELS)
        self.projection = nn.Linear(keys, WIDTH)  # no activation after it, as in the reference
        self.backbone = perceptron(WIDTH, HIDDEN, WIDTH)

    def forward(self, glimpses: Tensor) -> Tensor:
        keys = self.pyramid(glimpses.flatten(0, 1)).flatten(1)
        return self.backbone(self.projection(keys)).unflatten(0, glimpses.shape[:2])


class AttributeEncoder(nn.Module):
    """Glimpses (B, M, C, G, G) -> `Attributes`."""

    def __init__(self, size: DLPSettings) -> None:
        super().__init__()
        self.trunk = GlimpseTrunk(size)
        self.row = nn.Linear(WIDTH, 2)
        self.column = nn.Linear(WIDTH, 2)
        self.scale = nn.Linear(WIDTH, 4)
        self.on = nn.Linear(WIDTH, 2)
        self.depth = nn.Linear(WIDTH, 2)

    def forward(self, glimpses: Tensor) -> Attributes:
        features = self.trunk(glimpses)
        both = torch.stack([self.row(features), self.column(features)], dim=-1)  # (B, M, 2, 2)
        mean, logvar = both.unbind(dim=2)
        return Attributes(
            offset=Gaussian(torch.tanh(mean), logvar),
            scale=_gaussian(self.scale(features)),
            depth=_gaussian(self.depth(features)),
            on=Beta.from_logs(self.on(features)),
        )


class AppearanceEncoder(nn.Module):
    """Glimpses (B, K, C, G, G) -> appearance features, Gaussian (B, K, F)."""

    def __init__(self, size: DLPSettings) -> None:
        super().__init__()
        self.trunk = GlimpseTrunk(size)
        self.features = nn.Linear(WIDTH, 2 * size.learned_feature_dim)

    def forward(self, glimpses: Tensor) -> Gaussian:
        return _gaussian(self.features(self.trunk(glimpses)))


def _gaussian(x: Tensor) -> Gaussian:
    """(..., 2 D), means first -> Gaussian (..., D)."""
    return Gaussian(*x.chunk(2, dim=-1))
