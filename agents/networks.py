"""Policy, value and critic over entity sets: the Entity Interaction Transformer (spec: agents 3.1).

Letters as in `agents.layers`: K members, B batch, N entities, D features per entity, A action size.
The networks are invariant to the order of the entities of the state and of the goal.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agents.layers import MLP, Block, LayerNorm, Linear, modulate
from common.settings import setting


@dataclass(frozen=True)
class EITSettings:
    """Section `arch_eit`: size of every entity network."""

    embed_dim: int = setting(low=1)
    h_dim: int = setting(low=1)
    n_head: int = setting(low=1)
    dropout: float = setting(low=0.0, high=0.9)
    n_diffuser_layers: int = setting(low=1)


class EntityProjection(MLP):
    """Linear(D, H), LayerNorm, GELU, Linear(H, E) of each entity: (K, N, B, D) -> (K, N, B, E)."""

    def __init__(self, members: int, features: int, size: EITSettings) -> None:
        super().__init__(members, (features, size.h_dim, size.embed_dim))
        self.insert(1, LayerNorm(members, size.h_dim))


def entities_first(x: Tensor) -> Tensor:
    """(B, N, D) -> (1, N, B, D), the layout of `agents.layers`."""
    return x.transpose(0, 1).contiguous().unsqueeze(0)


class EntityTrunk(nn.Module):
    """State and goal sets to one vector per row: (B, N, D), (B, M, D) -> (K, B, H).

    Self-attention over the state's entities, cross-attention to the goal's, self-attention, then a
    learned token that gathers the set; LayerNorm and an MLP of three layers.

    Args:
        conditioned: all four blocks and the final norm are AdaLN (the critic, on its action).
    """

    def __init__(
        self, members: int, features: int, size: EITSettings, conditioned: bool = False
    ) -> None:
        super().__init__()
        self.members = members
        width, hidden = size.embed_dim, size.h_dim

        def block(cross: bool) -> Block:
            std = 0.0 if conditioned else None
            return Block(
                members,
                width,
                (hidden, hidden),
                size.n_head,
                cross=cross,
                condition_std=std,
                dropout=size.dropout,
            )

        self.project = EntityProjection(members, features, size)
        self.state_block = block(cross=False)
        self.goal_block = block(cross=True)
        self.mixed_block = block(cross=False)
        self.output_token = nn.Parameter(torch.randn(members, 1, 1, width) * 0.02)
        self.gather_block = block(cross=True)
        if conditioned:
            self.modulation = Linear(members, width, 2 * width, std=0.0)
        else:
            self.norm = LayerNorm(members, width)
        self.conditioned = conditioned
        self.head = MLP(members, (width, hidden, hidden, hidden), norm=conditioned, final_gelu=True)

    def forward(self, obs: Tensor, goal: Tensor, condition: Tensor | None = None) -> Tensor:
        sets = torch.cat([entities_first(obs), entities_first(goal)], dim=1)
        sets = self.project(sets.expand(self.members, -1, -1, -1))
        state, target = sets.split([obs.shape[1], goal.shape[1]], dim=1)  # (K, N, B, E) each
        x = self.state_block(state, condition=condition)
        x = self.goal_block(x, target, condition)
        x = self.mixed_block(x, condition=condition)
        token = self.output_token.expand(-1, -1, len(obs), -1)
        x = self.gather_block(token, x, condition).squeeze(1)  # (K, 1, B, E) -> (K, B, E)
        if self.conditioned:
            x = modulate(x, *self.modulation(condition).chunk(2, dim=-1))
        else:
            x = self.norm(x)
        return self.head(x)


class EntityPolicy(nn.Module):
    """Deterministic policy pi(s, g): (B, N, D), (B, M, D) -> (B, A) in (-1, 1)."""

    def __init__(self, features: int, action_dim: int, size: EITSettings) -> None:
        super().__init__()
        self.trunk = EntityTrunk(1, features, size)
        self.out = Linear(1, size.h_dim, action_dim)

    def forward(self, obs: Tensor, goal: Tensor) -> Tensor:
        return torch.tanh(self.out(self.trunk(obs, goal)).squeeze(0))


class EntityValue(nn.Module):
    """State value V(s, g): (B, N, D), (B, M, D) -> (B,)."""

    def __init__(self, features: int, size: EITSettings) -> None:
        super().__init__()
        self.trunk = EntityTrunk(1, features, size)
        self.out = Linear(1, size.h_dim, 1)

    def forward(self, obs: Tensor, goal: Tensor) -> Tensor:
        return self.out(self.trunk(obs, goal)).squeeze(-1).squeeze(0)


class EntityCritic(nn.Module):
    """K action values Q(s, a, g): (B, N, D), (B, A), (B, M, D) -> (K, B)."""

    def __init__(self, members: int, features: int, action_dim: int, size: EITSettings) -> None:
        super().__init__()
        self.members = members
        self.embed_action = MLP(members, (action_dim, size.h_dim, size.embed_dim))
        self.trunk = EntityTrunk(members, features, size, conditioned=True)
        self.out = Linear(members, size.h_dim, 1)

    def forward(self, obs: Tensor, action: Tensor, goal: Tensor) -> Tensor:
        condition = self.embed_action(action.expand(self.members, -1, -1))  # (K, B, E)
        return self.out(self.trunk(obs, goal, condition)).squeeze(-1)


def share_member(ensemble: nn.Module, single: nn.Module, member: int = 0) -> nn.Module:
    """Make `single` (one member) a frozen view of a member of `ensemble`: no copy, no gradient."""
    for source, view in zip(ensemble.parameters(), single.parameters(), strict=True):
        view.data = source.data[member : member + 1]
    return single.requires_grad_(False)
