"""What is seen in a glimpse: attributes and appearance of a particle (spec: 2.4, 2.7).

Letters: B images, M glimpses of each, C channels, G side of a glimpse, F appearance features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visual_encoders.dlp.distributions import Beta, Gaussian
from visual_encoders.dlp.layers import Pyramid, perceptron
from visual_encoders.dlp.settings import EXPLICIT, REDUCTION, DLPSettings

KEY_CHANNELS, WIDTH, HIDDEN = 32, 128, 256


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


@dataclass(frozen=True)
class Particles:
    """Values: position and scale logit (B, K, 2), depth and on (B, K, 1), features (B, K, F).

    `rows` is how agents see them (spec: visual_encoders 6.1).
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


def _gaussian(x: Tensor) -> Gaussian:
    """(..., 2 D), means first -> Gaussian (..., D)."""
    return Gaussian(*x.chunk(2, dim=-1))
