"""Published VQ-VAE checkpoints: reading and writing them."""

import math
import os
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from visual_encoders.checkpoints import load_folder, read_settings, select_entries
from visual_encoders.frozen import EncoderChoice, FrozenEncoder, to_bytes
from visual_encoders.vqvae.model import VQVAE, VQVAESettings
from visual_encoders.vqvae.perceptual import LPIPS, PREFIX

LOSS = "loss."  # begins what belongs to training; agents do without


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
        return (views * math.prod(self.model.latent_shape),)

    @torch.no_grad()
    def decode(self, latents: Tensor, frames: Tensor) -> Tensor:
        """Pictures of the latents alone, see the base class; of `frames` only V counts."""
        views = frames.shape[1]
        features = latents.to(self.device).unflatten(1, (views, -1)).flatten(0, 1)
        return to_bytes(self.model.images(features), views)


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> VQVAE:
    """Read the folder `path` (`hparams.json`, `best.pth`) onto `device`: frozen, to be evaluated.

    The perceptual network that published files carry along is left out. Raises `UserError` for a
    folder that is not complete, damaged or not of a VQ-VAE.
    """
    hparams, state = load_folder(path)
    settings = read_settings(VQVAESettings, hparams, path)
    with torch.device("meta"):  # initial values would be drawn for nothing
        network = VQVAE(settings)
    entries = select_entries(state, network.state_dict(), [LOSS], path)
    network.load_state_dict(entries, assign=True)
    network.to(device, memory_format=torch.channels_last)
    return network.eval().requires_grad_(False)


def export(network: VQVAE, lpips: LPIPS | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Content of a checkpoint folder: hyperparameters (ready for JSON) and weights.

    Two hyperparameters are only for the reference's loader, which also insists on a perceptual
    network: without one, files are for this code alone.
    """
    state = dict(network.state_dict())
    if lpips is not None:
        state |= {PREFIX + name: tensor for name, tensor in lpips.state_dict().items()}
    return asdict(network.settings) | {"device": "cpu", "pretrained_path": None}, state
