"""The VQ-VAE: encoder, codebook, decoder.

Letters: B images, C image channels, S image side in pixels, E numbers of a code, h = w = side of
the latent, F = E h w features of an image.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.foundation.errors import UserError
from common.settings.schema import setting
from visual_encoders.vqvae.layers import (
    GROUPS,
    Codes,
    Downsample,
    Level,
    Quantiser,
    Upsample,
    conv3,
    middle,
    norm,
)


@dataclass(frozen=True)
class VQVAEWidths:
    """Sizes of a network but for those of its images; `config.yaml` explains them."""

    embed_dim: int = setting(low=1)
    n_embed: int = setting(low=2)
    z_channels: int = setting(low=1)
    base_ch: int = setting(low=GROUPS)
    ch_mult: tuple[int, ...] = setting(low=1)
    num_res_blocks: int = setting(low=1)
    attn_resolutions: tuple[int, ...] = setting(low=1)
    dropout: float = setting(low=0.0, below=1.0)


@dataclass(frozen=True)
class VQVAESettings(VQVAEWidths):
    """All that a network is built from."""

    image_size: int = setting(low=1)  # S
    ch: int = setting(low=1)  # C

    @property
    def latent_size(self) -> int:
        """Side h of the latent."""
        return self.image_size // 2 ** (len(self.ch_mult) - 1)

    def check(self) -> None:
        """Raise `UserError` for values that do not fit together."""
        if self.base_ch % GROUPS:
            raise UserError(f"base_ch={self.base_ch} is not a multiple of {GROUPS}; choose one")
        factor = 2 ** (len(self.ch_mult) - 1)
        if not self.ch_mult or self.image_size % factor:
            raise UserError(
                f"image_size={self.image_size} cannot be halved {len(self.ch_mult) - 1} times; "
                "choose a multiple of 2^(number of ch_mult - 1)"
            )


class Encoder(nn.Module):
    """(B, C, S, S) in [-1, 1] -> (B, z_channels, h, w)."""

    def __init__(self, s: VQVAESettings) -> None:
        super().__init__()
        self.conv_in = conv3(s.ch, s.base_ch)
        self.down = nn.ModuleList()
        channels, size = s.base_ch, s.image_size
        for i, factor in enumerate(s.ch_mult):
            width = s.base_ch * factor
            attention = size in s.attn_resolutions
            level = Level(channels, width, s.num_res_blocks, attention=attention, dropout=s.dropout)
            is_last = i == len(s.ch_mult) - 1
            level.downsample = nn.Identity() if is_last else Downsample(width)
            self.down.append(level)
            channels, size = width, size // 2
        self.mid = middle(channels, s.dropout)
        self.norm_out = norm(channels)
        self.conv_out = conv3(channels, s.z_channels)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv_in(x)
        for level in self.down:
            hidden = level.downsample(level(hidden))
        return self.conv_out(F.silu(self.norm_out(self.mid(hidden))))


class Decoder(nn.Module):
    """(B, z_channels, h, w) -> (B, C, S, S), about [-1, 1]; nothing limits the output."""

    def __init__(self, s: VQVAESettings) -> None:
        super().__init__()
        channels, size = s.base_ch * s.ch_mult[-1], s.latent_size
        self.conv_in = conv3(s.z_channels, channels)
        self.mid = middle(channels, s.dropout)
        self.up = nn.ModuleList()
        for i in reversed(range(len(s.ch_mult))):  # a checkpoint numbers them as the encoder's
            width = s.base_ch * s.ch_mult[i]
            attention = size in s.attn_resolutions
            level = Level(
                channels, width, s.num_res_blocks + 1, attention=attention, dropout=s.dropout
            )
            level.upsample = Upsample(width) if i > 0 else nn.Identity()
            self.up.insert(0, level)
            channels, size = width, size * 2
        self.norm_out = norm(channels)
        self.conv_out = conv3(channels, s.ch)

    def forward(self, z: Tensor) -> Tensor:
        hidden = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            hidden = level.upsample(level(hidden))
        return self.conv_out(F.silu(self.norm_out(hidden)))


class VQVAE(nn.Module):
    """An autoencoder whose latent is a grid of codes from a book.

    Agents see what `encode` gives; `images` turns that, also generated, into pictures.
    """

    def __init__(self, settings: VQVAESettings) -> None:
        super().__init__()
        settings.check()
        self.settings = settings
        self.encoder = Encoder(settings)
        self.decoder = Decoder(settings)
        self.quantize = Quantiser(settings.n_embed, settings.embed_dim)
        self.quant_conv = nn.Conv2d(settings.z_channels, settings.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(settings.embed_dim, settings.z_channels, 1)
        # Convolutions on CPU take two thirds of the time in this layout (measured).
        self.to(memory_format=torch.channels_last)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(E, h, w)."""
        side = self.settings.latent_size
        return self.settings.embed_dim, side, side

    def quantise(self, images: Tensor) -> Codes:
        """Codes of images (B, C, S, S) in [0, 1]."""
        return self.quantize(self.quant_conv(self.encoder(2 * images - 1)))

    def decode(self, latent: Tensor) -> Tensor:
        """(B, E, h, w) -> (B, C, S, S) about [-1, 1], the range of the losses."""
        return self.decoder(self.post_quant_conv(latent))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Features as agents see them: images (B, C, S, S) in [0, 1] -> (B, F), channel-major."""
        return self.quantise(images).latent.flatten(1)

    def images(self, features: Tensor) -> Tensor:
        """Pictures (B, C, S, S) in [0, 1] of features (B, F) of one view.

        Generated features are no codes: they are clamped to [-1, 1] and decoded as they are. The
        output is clamped too; the reference writes it out as it is, so bright pixels wrap around.
        """
        latent = features.clamp(-1, 1).unflatten(1, self.latent_shape)
        return to_unit(self.decode(latent))


def to_unit(images: Tensor) -> Tensor:
    """Decoded images, about [-1, 1], as pictures in [0, 1]."""
    return (images.clamp(-1, 1) + 1) / 2
