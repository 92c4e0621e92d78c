"""The VQ-VAE as agents use it. Letters: B rows, V views, F features of a view."""

import math

import torch
from torch import Tensor

from visual_encoders.frozen import EncoderChoice, FrozenEncoder, to_bytes
from visual_encoders.vqvae.published import load


class FrozenVQVAE(FrozenEncoder):
    """Codes of all views as one vector, channel-major; the first F numbers of view 1 and so on."""

    own_key = "n_embed"

    def __init__(self, choice: EncoderChoice) -> None:
        super().__init__(choice)
        self.model = load(choice.path, self.device)
        size = self.model.settings
        self.frame = (size.image_size, size.image_size, size.ch)
        self.setup = {}

    def shape(self, views: int) -> tuple[int]:
        """(V F,)."""
        return (views * math.prod(self.model.latent_shape),)

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (B, V, S, S, C) uint8 -> (B, V F)."""
        return self.model.encode_frames(frames)

    @torch.no_grad()
    def decode(self, latents: Tensor, frames: Tensor) -> Tensor:
        """Pictures of the latents alone, see the base class; of `frames` only V counts."""
        views = frames.shape[1]
        features = latents.to(self.device).unflatten(1, (views, -1)).flatten(0, 1)
        return to_bytes(self.model.images(features), views)
