"""LPIPS (Zhang et al. 2018): distance of two images to VGG16, which was trained on photographs.

Only training the VQ-VAE needs it. Its weights are not trained here:
they come along in every published VQ-VAE checkpoint, so there is nothing else to download.
"""

import os
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from common.foundation.errors import UserError
from visual_encoders.checkpoints import load_folder, select_entries

PREFIX = "loss.perceptual_loss."  # of its entries in a VQ-VAE checkpoint
EPSILON = 1e-10  # keeps the length of a pixel's channel vector from zero
# Slices of VGG16 up to relu1_2, 2_2, 3_3, 4_3, 5_3: number of the first convolution among VGG's
# layers, and widths, the input's first. The numbers are part of the checkpoint's names.
SLICES = (
    (0, (3, 64, 64)),
    (5, (64, 128, 128)),
    (10, (128, 256, 256, 256)),
    (17, (256, 512, 512, 512)),
    (24, (512, 512, 512, 512)),
)


class _Scaling(nn.Module):
    """From [-1, 1] to the statistics of the photographs that VGG was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.shift) / self.scale


class LPIPS(nn.Module):
    """Perceptual distance of images, frozen.

    Images (B, 3, H, W) in [-1, 1], H and W at least 16; the distance (B,). There is no dropout: the
    reference's training switches one on by accident, which makes its perceptual loss random.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scaling_layer = _Scaling()
        self.net = nn.ModuleDict({f"slice{i + 1}": _slice(*s) for i, s in enumerate(SLICES)})
        for i, (_, widths) in enumerate(SLICES):
            weigh = nn.Conv2d(widths[-1], 1, 1, bias=False)
            self.add_module(f"lin{i}", nn.ModuleDict({"model": nn.ModuleDict({"1": weigh})}))
        self.requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """sum over layers, mean over pixels, of sum_c w_c (x^_c - y^_c)^2."""
        x, y = self.scaling_layer(x), self.scaling_layer(y)
        distance = x.new_zeros(len(x))
        for i, part in enumerate(self.net.values()):
            x, y = part(x), part(y)
            weigh = getattr(self, f"lin{i}")["model"]["1"]
            distance = distance + weigh((_unit(x) - _unit(y)).square()).mean((1, 2, 3))
        return distance


def _slice(first: int, widths: tuple[int, ...]) -> nn.Sequential:
    """A slice of VGG16: pooling but for the first, then convolutions with ReLU."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if first:
        layers[str(first - 1)] = nn.MaxPool2d(2)
    for i, (channels, out) in enumerate(pairwise(widths)):
        layers[str(first + 2 * i)] = nn.Conv2d(channels, out, 3, padding=1)
        layers[str(first + 2 * i + 1)] = nn.ReLU()
    return nn.Sequential(layers)


def _unit(x: Tensor) -> Tensor:
    """Channel vectors of length one."""
    return x / (x.norm(dim=1, keepdim=True) + EPSILON)


def load_lpips(folder: str | os.PathLike[str]) -> LPIPS:
    """Take the perceptual network out of the VQ-VAE checkpoint `folder`."""
    if not Path(folder).is_dir():
        raise UserError(
            f"no perceptual network at {folder}; fetch one with `python -m "
            f"visual_encoders.download_chkpts {Path(folder).name}`, or set "
            "encoder.vqvae.lpips=null to train without"
        )
    _, state = load_folder(folder)
    own = {name.removeprefix(PREFIX): t for name, t in state.items() if name.startswith(PREFIX)}
    if not own:
        raise UserError(
            f"{folder} has no perceptual network; give a published checkpoint as "
            "encoder.vqvae.lpips, or null to train without"
        )
    with torch.device("meta"):
        network = LPIPS()
    network.load_state_dict(select_entries(own, network.state_dict(), [], folder), assign=True)
    return network.requires_grad_(False)
