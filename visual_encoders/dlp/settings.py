"""Sizes and priors of a DLP network, with the names they have in published `hparams.json` files."""

import math
from dataclasses import dataclass

from common.settings.schema import SettingError, setting

EXPLICIT = 6  # leading numbers of a particle that have a meaning each; appearance follows
REDUCTION = 4  # side of an image over side of its key map
SCALE_SHARE = 0.75  # the prior of a particle's size, over that of a glimpse
# Published `hparams.json` files do not tell the widths of the decoders, which are all the same.
PUBLISHED_DECODERS = {"obj_dec_channels": [64, 64, 32], "bg_dec_channels": [128, 64, 32]}


@dataclass(frozen=True)
class DLPSizes:
    """Sizes and priors of a network but for those of its images; `config.yaml` explains them.

    Unused here is `n_kp_prior`: the reference's loader filters only if K is smaller, and K
    particles are kept here whatever K is. The reference has fixed decoders (`PUBLISHED_DECODERS`),
    and pads by replication whatever `pad_mode` says, so both names do here.
    """

    patch_size: int = setting(low=REDUCTION)
    n_kp: int = setting(choices=(1,))
    n_kp_enc: int = setting(low=1)
    n_kp_prior: int = setting(low=1)
    learned_feature_dim: int = setting(low=1)
    bg_learned_feature_dim: int = setting(low=1)
    prior_channels: tuple[int, ...] = setting(low=1)
    enc_channels: tuple[int, ...] = setting(low=1)
    obj_dec_channels: tuple[int, ...] = setting(low=1)
    bg_dec_channels: tuple[int, ...] = setting(low=1)
    pad_mode: str = setting(choices=("replicate", "reflect"))
    kp_range: tuple[float, ...] = setting(choices=(-1.0, 1.0))
    kp_activation: str = setting(choices=("tanh",))
    anchor_s: float = setting(above=0, below=1)
    sigma: float = setting(above=0)
    scale_std: float = setting(above=0)
    offset_std: float = setting(above=0)
    obj_on_alpha: float = setting(above=0)
    obj_on_beta: float = setting(above=0)


@dataclass(frozen=True)
class DLPSettings(DLPSizes):
    """All that a DLP network is made of."""

    image_size: int = setting(low=32)  # side of the square images in pixels, H below
    cdim: int = setting(low=1)  # channels of the images, C

    def __post_init__(self) -> None:
        size, patch = self.image_size, self.patch_size
        if size & (size - 1):
            raise SettingError(f"image_size={size} does not fit; allowed: powers of two from 32")
        if size % patch or patch % REDUCTION:
            raise SettingError(
                f"patch_size={patch} does not fit image_size={size}; "
                f"allowed: multiples of {REDUCTION} that divide it"
            )
        if self.glimpse_size < REDUCTION or self.glimpse_size % REDUCTION:
            raise SettingError(
                f"anchor_s={self.anchor_s:g} makes glimpses of {self.glimpse_size} pixels; "
                f"allowed: multiples of {REDUCTION}"
            )
        if self.n_kp_enc > self.proposals:
            raise SettingError(
                f"n_kp_enc={self.n_kp_enc} is too large; allowed: integers of at least 1 and at "
                f"most {self.proposals}, one per patch"
            )
        if self.kp_range != (-1.0, 1.0):
            raise SettingError("kp_range does not fit; allowed: [-1,1]")
        for name in ("prior_channels", "enc_channels"):
            channels = getattr(self, name)
            # Entries of a checkpoint are named after the last two, so equal ones would clash.
            if len(channels) != 3 or channels[1] == channels[2]:
                raise SettingError(f"{name} does not fit; allowed: 3 numbers, the last two unequal")
        for name in PUBLISHED_DECODERS:
            if len(getattr(self, name)) != 3:
                raise SettingError(f"{name} does not fit; allowed: 3 numbers")

    @property
    def proposals(self) -> int:
        """Positions that are proposed, P: one per patch."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def glimpse_size(self) -> int:
        """Side of a glimpse in pixels, G."""
        return round(self.anchor_s * (self.image_size - 1))

    @property
    def anchor_logit(self) -> float:
        """Scale logit of a particle as large as a glimpse."""
        return _logit(self.anchor_s)

    @property
    def scale_prior_mean(self) -> float:
        """Scale logit in the middle of its prior."""
        return _logit(SCALE_SHARE * self.anchor_s)


def _logit(share: float) -> float:
    """Inverse of the sigmoid, with the reference's small number."""
    return math.log(share / (1 - share + 1e-5))
