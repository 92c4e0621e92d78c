"""Conditional diffusion over windows of actions and entity sets (Qi et al. 2025).

Letters: B batch, H slots of a window, N entities, D features, A action size, E embedding, T
diffusion steps. The first slot's set is the state, the last one's the goal; the other sets and all
actions are free, F = (H - 2) N D + H A numbers in all. Those are kept in one vector (B, F).
"""

import torch
from torch import Tensor, nn

from agents.networks.diffusion import GaussianDiffusion, SlotDenoiser
from agents.networks.entities import EITSettings, entities_first
from agents.networks.layers import MLP
from agents.observations.spec import ObservationSpec

EPSILON = 1e-6  # added to a variance


class Scaling(nn.Module):
    """y = (x - center) / scale for each of D features, the last axis; at first the identity."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.center) / self.scale

    def inverse(self, y: Tensor) -> Tensor:
        """x of y."""
        return y * self.scale + self.center

    def fit_limits(self, low: Tensor, high: Tensor) -> None:
        """Map [low, high] (D,) to [-1, 1]; a constant feature has limits 1 below and above it."""
        self.center.copy_((low + high) / 2)
        self.scale.copy_(torch.where(high > low, (high - low) / 2, 1.0))

    def fit_moments(self, mean: Tensor, var: Tensor) -> None:
        """Map to mean 0 and variance 1."""
        self.center.copy_(mean)
        self.scale.copy_((var + EPSILON).sqrt())


class WindowDenoiser(SlotDenoiser):
    """Predicts of every free set and action what is clean, or what is noise, in it.

    One more token per slot, of its action; each slot's blocks are modulated by its noisy action and
    the diffusion time. Equivariant: reordering the entities (of a view) of one slot reorders what
    is said of them and nothing else.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        action_dim: int,
        size: EITSettings,
        slots: int,
        gate_std: float | None = None,
    ) -> None:
        super().__init__(spec.features, size, slots, spec.views, gate_std)
        width = size.embed_dim
        self.encode_action = MLP(1, (action_dim, size.h_dim, width))
        self.action_encoding = nn.Parameter(torch.randn(1, 1, 1, width) * size.init_std)
        self.decode_action = MLP(1, (width, size.h_dim, action_dim))

    def forward(self, sets: Tensor, actions: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """All sets (B, H, N, D), actions (B, H, A), times (B,) -> (B, H-2, N, D), (B, H, A)."""
        slots = sets.shape[1]
        sets = entities_first(sets.flatten(1, 2)).unflatten(1, (slots, -1))  # (1, H, N, B, D)
        time = self.time(t)
        action = self.encode_action(entities_first(actions))  # (1, H, B, E)
        condition = action + self.action_encoding + time.unsqueeze(1)
        action_tokens = (condition + self.slot_encoding).unsqueeze(2)
        x = torch.cat([self.tokens(sets, time), action_tokens], dim=2)  # (1, H, N+1, B, E)
        for block in self.blocks:
            x = block(x, condition=condition)
        sets = self.decode(self.head(x[:, 1:-1, :-1], condition[:, 1:-1]))
        actions = self.decode_action(self.head(x[:, :, -1:], condition))
        return sets[0].permute(2, 0, 1, 3), actions[0, :, 0].transpose(0, 1)


class WindowDiffuser(GaussianDiffusion):
    """Gaussian diffusion of windows between a state set and a goal set.

    Args:
        predicts_noise: the network learns the noise, or else the clean window.
        closed_gates: every block starts as the identity.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        action_dim: int,
        size: EITSettings,
        slots: int,
        steps: int,
        *,
        predicts_noise: bool,
        closed_gates: bool,
    ) -> None:
        super().__init__(steps, predicts_noise)
        self.slots, self.features, self.action_dim = slots, spec.features, action_dim
        gate_std = 0.0 if closed_gates else None
        self.denoiser = WindowDenoiser(spec, action_dim, size, slots, gate_std)

    def count(self, entities: int) -> int:
        """F, of windows with N entities."""
        return (self.slots - 2) * entities * self.features + self.slots * self.action_dim

    def join(self, sets: Tensor, actions: Tensor) -> Tensor:
        """Free sets (B, H-2, N, D) and actions (B, H, A) as one vector (B, F)."""
        return torch.cat([sets.flatten(1), actions.flatten(1)], dim=1)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `join`."""
        actions = self.slots * self.action_dim
        sets, actions = x.split([x.shape[1] - actions, actions], dim=1)
        sets = sets.unflatten(1, (self.slots - 2, -1, self.features))
        return sets, actions.unflatten(1, (self.slots, self.action_dim))

    def forward(self, state: Tensor, goal: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Output of the network for noisy x (B, F) between state and goal (B, N, D) at t (B,)."""
        sets, actions = self.split(x)
        sets = torch.cat([state.unsqueeze(1), sets, goal.unsqueeze(1)], dim=1)
        return self.join(*self.denoiser(sets, actions, t))

    def sample(self, state: Tensor, goal: Tensor, noise: Tensor) -> Tensor:
        """Free parts (B, F) of windows from state to goal (B, N, D); `noise` (T, B, F)."""
        return self.ancestral(lambda x, t: self(state, goal, x, t), noise)
