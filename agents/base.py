"""What every agent is built from, and a few words that all of them use."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from agents.learner import Learner

Metrics = dict[str, Tensor]  # name, prefixed by its network -> scalar tensor
Noise = tuple[Tensor, ...]  # what an update draws besides its batch

# Batches are padded to a multiple of this many rows when acting. Matrix products treat the last few
# rows of an odd batch differently; padded, a row's result does not depend on how many others are
# asked with it, so an episode has the same result in any company.
ROW_BLOCK = 32


@dataclass(frozen=True)
class ObservationSpec:
    """What an observation is, as far as networks need to know.

    Attributes:
        kind: "entities", "flat" or "image".
        shape: (N, D) for entities, (S,) for flat ones, (V*3, H, W) uint8 for images.
        views: V cameras. Of entities the first N/V belong to view 1 and so on; a flat observation
            is one vector after the other.
        explicit: leading features of a particle (position, scale, depth, transparency), which are
            projected apart from its visual features; 0 = all features together.
    """

    kind: str
    shape: tuple[int, ...]
    views: int = 1
    explicit: int = 0

    @property
    def features(self) -> int:
        """D of entities, S of a flat observation."""
        return self.shape[-1]

    @property
    def ordered(self) -> bool:
        """Whether rows of two observations of an episode belong together; not so for particles."""
        return self.explicit == 0


class Networks(Protocol):
    """Makes the networks that fit an observation and an action; see `agents.families`."""

    @property
    def fills_threads(self) -> bool:
        """Whether one update keeps two CPU threads busy, so that a second process gains nothing."""

    def policy(self) -> nn.Module:
        """pi(s, g): (B, *shape) twice -> (B, A) in (-1, 1)."""

    def value(self) -> nn.Module:
        """V(s, g): (B, *shape) twice -> (B,)."""

    def critic(self, members: int) -> nn.Module:
        """K members of Q(s, a, g): (B, *shape), (B, A), (B, *shape) -> (K, B)."""

    def subgoal_policy(self) -> nn.Module:
        """Deterministic subgoal of (s, g): (B, *shape) twice -> (B, *shape)."""

    def diffuser(self, steps: int) -> nn.Module:
        """Diffusion of subgoals, see `agents.diffusion.SubgoalDiffuser`."""


@dataclass(frozen=True)
class AgentContext:
    """Everything an agent is built from besides its own section of the settings.

    Attributes:
        spec: of one observation. action_dim: A. networks: makes the networks that fit both.
        gamma, lr, lr_decay_steps, grad_clip_norm: learning settings that all agents share.
        fused_adam: see `Learner`.
    """

    spec: ObservationSpec
    action_dim: int
    networks: Networks
    gamma: float
    lr: float
    lr_decay_steps: int
    grad_clip_norm: float
    device: torch.device
    fused_adam: bool | str = "auto"

    def learner(self, network: nn.Module) -> Learner:
        """The optimiser of one network."""
        norm, decay = self.grad_clip_norm, self.lr_decay_steps
        return Learner(network, self.lr, norm, decay, self.fused_adam)


def pad_rows(x: Tensor) -> Tensor:
    """Repeat the first row until there is a multiple of `ROW_BLOCK`: (R, ...) -> (R', ...)."""
    missing = -len(x) % ROW_BLOCK
    return torch.cat([x, x[:1].expand(missing, *x.shape[1:])]) if missing else x
