"""What every agent is: a few losses, one update, one act."""

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.networks import EITSettings

Metrics = dict[str, Tensor]  # name, prefixed by its network -> scalar tensor

# Batches are padded to a multiple of this many rows when acting. Matrix products treat the last few
# rows of an odd batch differently; padded, a row's result does not depend on how many others are
# asked with it, so an episode has the same result in any company.
ROW_BLOCK = 32


@dataclass(frozen=True)
class AgentContext:
    """Everything an agent is built from besides its own section of the settings.

    Attributes:
        shape: of one observation, (N, D) for entity sets. action_dim: A.
        size: widths of the entity networks.
        gamma, lr, grad_clip_norm: learning settings that all agents share.
    """

    shape: tuple[int, ...]
    action_dim: int
    size: EITSettings
    gamma: float
    lr: float
    grad_clip_norm: float
    device: torch.device


def pad_rows(x: Tensor) -> Tensor:
    """Repeat the first row until there is a multiple of `ROW_BLOCK`: (R, ...) -> (R', ...)."""
    missing = -len(x) % ROW_BLOCK
    return torch.cat([x, x[:1].expand(missing, *x.shape[1:])]) if missing else x
