"""Observations made of images."""

import torch
from torch import Tensor

from agents.observations.states import Observation
from common.data.normaliser import Normaliser
from common.foundation.errors import UserError
from datasets.source import EpisodeSource
from envs.base import World


class Images(Observation):
    """Observations made of images: themselves, or what an encoder says of each view.

    Attributes:
        stored: shape of a raw row, (H, W, 3) or (V, H, W, 3). views: V, 1 or more.
    """

    column = "observations"
    pixels = True

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.stored, _ = world.dataset_columns(pixels=True)[self.column]
        self.views = self.stored[0] if len(self.stored) == 4 else 1
        self.collect_overrides = ("obs=rgb", *(("multiview=true",) if world.multiview else ()))

    def check(self, dataset: EpisodeSource) -> None:
        """Raise `UserError` unless a dataset has images of as many views, as large as here."""
        if self.column not in dataset.header["columns"]:
            again = " ".join(self.collect_overrides)
            raise UserError(f"dataset {dataset} has no images; collect with {again}")
        found, _ = dataset.column(self.column)
        if found != self.stored:
            raise UserError(
                f"dataset {dataset} has {_describe(found)}, the settings ask for "
                f"{_describe(self.stored)}; set multiview and the size in "
                f"env_kwargs.{self.world.section} as they were collected"
            )

    def channels_first(self, raw: Tensor) -> Tensor:
        """Raw rows (B, H, W, 3) or (B, V, H, W, 3) -> (B, V, 3, H, W), as they are."""
        return raw.reshape(-1, self.views, *self.stored[-3:]).movedim(-1, 2)


class RGB(Images):
    """`rgb`: the images as they are, the views' channels one after the other.

    Nothing is normalised, and bytes stay bytes: networks divide by 255.
    """

    kind = "image"
    dtype = torch.uint8

    def __init__(self, world: World) -> None:
        super().__init__(world)
        height, width, channels = self.stored[-3:]
        self.shape = (self.views * channels, height, width)

    def encode(self, raw: Tensor, identities: Tensor) -> Tensor:
        return self.channels_first(raw).flatten(1, 2)

    def decode(self, obs: Tensor) -> Tensor:
        return obs.unflatten(1, (self.views, -1)).movedim(2, -1).reshape(-1, *self.stored)

    def fit(self, obs: Tensor) -> "Normaliser":
        return Normaliser.none(obs.device)

    def start(self, device: torch.device) -> Normaliser:
        return Normaliser.none(device)


def _describe(shape: tuple[int, ...]) -> str:
    """Images of shape (H, W, 3) or (V, H, W, 3) in words, width first."""
    views = shape[0] if len(shape) == 4 else 1
    plural = "s" if views > 1 else ""
    return f"{views} view{plural} of {shape[-2]} x {shape[-3]} pixels"
