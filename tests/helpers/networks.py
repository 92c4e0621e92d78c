"""Small networks and observations."""

import torch

from agents.networks.entities import EITSettings
from agents.networks.flat import MLPSettings
from agents.observations.spec import ObservationSpec

SMALL = EITSettings(
    embed_dim=16, h_dim=24, n_head=4, init_std=0.02, dropout=0.0, n_diffuser_layers=2
)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def randomise(module: torch.nn.Module) -> torch.nn.Module:
    """Give every parameter, the closed gates too, a value that matters."""
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return module


def entities(features: int) -> ObservationSpec:
    return ObservationSpec("entities", (4, features))


SMALL_MLP = MLPSettings(h_dim=24, conv_channels=(4, 6, 8))
PARTICLES = ObservationSpec("entities", (6, 9), views=2, explicit=4)
SPECS = {
    "entities": entities(7),
    "particles": PARTICLES,
    "flat": ObservationSpec("flat", (10,), views=2),
    "image": ObservationSpec("image", (6, 32, 32), views=2),
}


def observations(spec: ObservationSpec, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States and goals of a kind."""
    shape = (2, rows, *spec.shape)
    if spec.kind == "image":
        return torch.randint(0, 256, shape, dtype=torch.uint8).unbind()
    return torch.randn(shape).unbind()
