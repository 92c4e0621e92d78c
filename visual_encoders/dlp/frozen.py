"""DLP as agents use it. Letters: B rows, V views, K particles of a view, D features of each."""

import torch
from torch import Tensor

from visual_encoders.dlp.particles import Particles
from visual_encoders.dlp.pictures import draw_particles
from visual_encoders.dlp.published import load
from visual_encoders.dlp.settings import EXPLICIT
from visual_encoders.frozen import EncoderChoice, FrozenEncoder, to_bytes, to_float


class FrozenDLP(FrozenEncoder):
    """Particles of all views: the first K rows of view 1 and so on, D = 6 + appearance."""

    own_key = "n_kp_enc"
    explicit = EXPLICIT

    def __init__(self, choice: EncoderChoice) -> None:
        super().__init__(choice)
        model = load(choice.path, self.device, choice.particles)
        self.model = model.eval().requires_grad_(False)
        size = self.model.size
        self.frame = (size.image_size, size.image_size, size.cdim)
        self.setup = {"particles": self.model.particles}

    def shape(self, views: int) -> tuple[int, int]:
        """(V K, D)."""
        features = EXPLICIT + self.model.size.learned_feature_dim
        return views * self.model.particles, features

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (B, V, S, S, C) uint8 -> (B, V K, D)."""
        return self.model.encode_frames(frames)

    @torch.no_grad()
    def decode(self, latents: Tensor, frames: Tensor) -> Tensor:
        """Objects over the background of `frames`, a dot on each particle; see the base class.

        The background's code is its posterior's mean (the reference draws from the posterior).
        """
        views = frames.shape[1]
        rows = latents.to(self.device).unflatten(1, (views, -1)).flatten(0, 1).clone()
        rows[..., EXPLICIT - 1].clamp_(0, 1)  # generated transparencies may leave their range
        particles = Particles.from_rows(rows)
        code = self.model(to_float(frames, self.device)).background_code
        picture = self.model.decode(particles, code).image
        return to_bytes(draw_particles(picture, particles), views)
