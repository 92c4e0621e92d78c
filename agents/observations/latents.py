"""Observations that a frozen encoder makes of images: `dlp` and `vqvae`.

Letters: B rows, V views, R rows of a dataset, *shape of an observation.
"""

import warnings

import numpy as np
import torch
from torch import Tensor

from agents.observations.images import Images
from agents.observations.spec import ObservationSpec
from common.foundation.errors import UserError
from datasets.source import EpisodeSource
from envs.base import World
from envs.rendering import side_by_side
from visual_encoders.encode import encode_dataset
from visual_encoders.frozen import KEY, EncoderChoice


class Latents(Images):
    """Output of an encoder for each view, and nothing else. Training reads it from disk.

    Attributes:
        encoder: the frozen encoder.

    Raises `UserError` if there is no encoder, or it was trained on another environment, on another
    number of views, or on frames of another size.
    """

    encoded = True

    def __init__(self, world: World, choice: EncoderChoice) -> None:
        super().__init__(world)
        self.encoder = choice.load()
        self.encoder.check_origin(world.name, self.views)
        self.shape = self.encoder.shape(self.views)
        frame = self.stored[-3:]
        if frame != self.encoder.frame:
            wanted, found = (" x ".join(map(str, size)) for size in (self.encoder.frame, frame))
            raise UserError(
                f"{KEY}={choice.path} was trained on frames of {wanted}, the settings make them "
                f"{found}; set the size in env_kwargs.{world.section}, or give another encoder"
            )

    @property
    def spec(self) -> ObservationSpec:
        return ObservationSpec(self.kind, self.shape, self.views, self.encoder.explicit)

    @property
    def encoder_sha256(self) -> str:
        return self.encoder.fingerprint

    def encode(self, raw: Tensor, identities: Tensor) -> Tensor:
        return self.encoder.encode(self._frames(raw))

    def picture(self, obs: Tensor, goal: np.ndarray) -> np.ndarray:
        frames = self._frames(torch.from_numpy(goal))
        return side_by_side(self.encoder.decode(obs.unsqueeze(0), frames)[0].numpy())

    def open(self, dataset: EpisodeSource, div: int, workers: int) -> Tensor:
        """All rows of the first 1/`div` of the training episodes, not normalised, mapped from disk.

        What is not on disk yet is encoded first, by `workers` processes on CPU (0: one per core).
        (R, *shape); see `encode_dataset` for what it raises.
        """
        store = encode_dataset(dataset, self.encoder, self.views, div=div, workers=workers)
        latents = store.read(len(dataset.lengths(div=div)))
        with warnings.catch_warnings():  # that the array is read-only, which is as it should be
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(latents)

    def derived(self, dataset: EpisodeSource, div: int, workers: int) -> dict[str, tuple[str, str]]:
        store = encode_dataset(dataset, self.encoder, self.views, div=div, workers=workers)
        digest = store.digest(len(dataset.lengths(div=div)))
        encoder = self.encoder.choice.path, self.encoder.fingerprint
        return {"encoder": encoder, "latents": (str(store.folder), digest)}

    def _frames(self, raw: Tensor) -> Tensor:
        """Raw rows (B, H, W, 3) or (B, V, H, W, 3) -> (B, V, H, W, 3)."""
        return raw.reshape(-1, self.views, *self.stored[-3:])


class Particles(Latents):
    """`dlp`: a set of particles of every view."""

    kind = "entities"


class Codes(Latents):
    """`vqvae`: the codes of every view as one flat vector."""

    kind = "flat"
