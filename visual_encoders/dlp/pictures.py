"""Pictures of what DLP makes of images, for the record of a training run.

Letters: B images, H their side, K particles.
"""

import torch
from torch import Tensor

from visual_encoders.dlp.encoders import Particles
from visual_encoders.dlp.model import DLP
from visual_encoders.dlp.ops import axis

RADIUS, RIM = 0.025, 0.015  # of the dot of a particle and of the dark rim around it, image sides


@torch.no_grad()
def pictures(model: DLP, images: Tensor) -> dict[str, Tensor]:
    """Images (B, 3, H, H) in [0, 1] and what the model sees in them, name -> (B, 3, H, H).

    The image, its particles as dots, the reconstruction, its objects on black, its background.
    Deterministic.
    """
    encoding = model(images)
    picture = model.decode(encoding.particles, encoding.background_code)
    return {
        "image": images,
        "particles": draw_particles(images, encoding.particles),
        "reconstruction": picture.image,
        "objects": picture.foreground,
        "background": picture.background,
    }


def draw_particles(images: Tensor, particles: Particles) -> Tensor:
    """Draw each particle as a dot with a dark rim, as visible as it is opaque: (B, 3, H, H).

    Colours run through the hues in the order of the particles, best score first.
    """
    nodes = axis(images.shape[-1], images)
    away = (nodes - particles.position.unsqueeze(-1)) / 2  # (B, K, 2, H), in image sides
    distance = (away[:, :, 0, :, None].square() + away[:, :, 1, None, :].square()).sqrt()
    drawn = images
    for k, colour in enumerate(hues(particles.position.shape[1]).to(images)):
        reach = distance[:, k].unsqueeze(1)  # (B, 1, H, H)
        dot = colour[:, None, None] * (reach <= RADIUS)
        cover = particles.on[:, k, :, None, None] * (reach <= RADIUS + RIM)
        drawn = drawn + cover * (dot - drawn)
    return drawn


def hues(count: int) -> Tensor:
    """Evenly spaced saturated colours: (count, 3) in [0, 1]."""
    turn = torch.arange(count).unsqueeze(1) / count + torch.tensor([0.0, 2 / 3, 1 / 3])
    return (6 * (turn % 1 - 0.5).abs() - 1).clamp(0, 1)
