"""Networks over entity sets: the Entity Interaction Transformer.

Letters as in `agents.networks.layers`: K members, B batch, N entities, D features per entity, A
action size.
Policy, value and critic are invariant to the order of the entities of the state and of the goal
(of particles: within a view), the subgoal policy is equivariant to the state's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agents.networks.layers import MLP, Block, LayerNorm, Linear, Output, modulate
from agents.observations.spec import ObservationSpec
from common.settings.schema import setting


@dataclass(frozen=True)
class EITSettings:
    """Section `arch_eit`: size of every entity network."""

    embed_dim: int = setting(low=1)
    h_dim: int = setting(low=1)
    n_head: int = setting(low=1)
    init_std: float = setting(above=0.0)  # N(0, std^2), of the blocks' weights
    dropout: float = setting(low=0.0, high=0.9)
    n_diffuser_layers: int = setting(low=1)

    def misfit(self, section: str) -> str | None:
        """The reason, with the keys of `section`, why width and heads do not go together."""
        if self.embed_dim % 2 == 0 and self.embed_dim % self.n_head == 0:
            return None
        return (
            f"{section}.embed_dim={self.embed_dim} does not fit {section}.n_head={self.n_head}; "
            "allowed: even multiples of the number of heads"
        )


class EntityProjection(MLP):
    """Linear(D, H), LayerNorm, GELU, Linear(H, E) of each entity: (K, N, B, D) -> (K, N, B, E)."""

    def __init__(self, members: int, features: int, hidden: int, width: int) -> None:
        super().__init__(members, (features, hidden, width))
        self.insert(1, LayerNorm(members, hidden))


class ParticleProjection(nn.Module):
    """Explicit and visual features of a particle, each to E/2: (K, N, B, D) -> (K, N, B, E)."""

    def __init__(self, members: int, spec: ObservationSpec, size: EITSettings) -> None:
        super().__init__()
        self.widths = spec.explicit, spec.features - spec.explicit
        self.explicit, self.visual = (
            EntityProjection(members, features, size.h_dim, size.embed_dim // 2)
            for features in self.widths
        )

    def forward(self, x: Tensor) -> Tensor:
        explicit, visual = x.split(self.widths, dim=-1)
        return torch.cat([self.explicit(explicit), self.visual(visual)], dim=-1)


class ViewEncoding(nn.Module):
    """Adds a learned vector per view to its entities, which lie together: (K, N, B, E)."""

    def __init__(self, members: int, views: int, width: int, std: float) -> None:
        super().__init__()
        self.encoding = nn.Parameter(torch.randn(members, views, 1, width) * std)

    def forward(self, x: Tensor) -> Tensor:
        views = self.encoding.shape[1]
        return x + self.encoding.repeat_interleave(x.shape[1] // views, dim=1)


def entities_first(x: Tensor) -> Tensor:
    """(B, N, D) -> (1, N, B, D), the layout of `agents.networks.layers`."""
    return x.transpose(0, 1).contiguous().unsqueeze(0)


class EntityMixer(nn.Module):
    """Base of all of them: (B, N, D), (B, M, D) -> the state's entities (K, N, B, E).

    Self-attention over the state's entities, cross-attention to the goal's, self-attention. State
    and goal share the projection and the encodings of the views.

    Args:
        conditioned: all blocks are AdaLN (the critic, on its action).
    """

    def __init__(
        self, members: int, spec: ObservationSpec, size: EITSettings, conditioned: bool = False
    ) -> None:
        super().__init__()
        self.members, self.conditioned, self.size = members, conditioned, size
        width = size.embed_dim
        if spec.explicit:
            self.project = ParticleProjection(members, spec, size)
        else:
            self.project = EntityProjection(members, spec.features, size.h_dim, width)
        self.encode_view: nn.Module = nn.Identity()
        if spec.views > 1:
            self.encode_view = ViewEncoding(members, spec.views, width, size.init_std)
        self.state_block = self.block(cross=False)
        self.goal_block = self.block(cross=True)
        self.mixed_block = self.block(cross=False)

    def block(self, cross: bool) -> Block:
        """One more transformer block of this network."""
        size, hidden = self.size, (self.size.h_dim, self.size.h_dim)
        condition_std = 0.0 if self.conditioned else None
        options = {"std": size.init_std, "cross": cross, "dropout": size.dropout}
        shape = self.members, size.embed_dim, hidden, size.n_head
        return Block(*shape, condition_std=condition_std, **options)

    def mix(self, obs: Tensor, goal: Tensor, condition: Tensor | None = None) -> Tensor:
        sets = torch.cat([entities_first(obs), entities_first(goal)], dim=1)
        sets = self.project(sets.expand(self.members, -1, -1, -1))
        state, target = sets.split([obs.shape[1], goal.shape[1]], dim=1)  # (K, N, B, E) each
        state, target = self.encode_view(state), self.encode_view(target)
        x = self.state_block(state, condition=condition)
        x = self.goal_block(x, target, condition)
        return self.mixed_block(x, condition=condition)


class EntityTrunk(EntityMixer):
    """State and goal sets to one vector per row: (B, N, D), (B, M, D) -> (K, B, H).

    After the mixing a learned token gathers the set; LayerNorm and an MLP of three layers.
    """

    def __init__(
        self, members: int, spec: ObservationSpec, size: EITSettings, conditioned: bool = False
    ) -> None:
        super().__init__(members, spec, size, conditioned)
        width, hidden = size.embed_dim, size.h_dim
        self.output_token = nn.Parameter(torch.randn(members, 1, 1, width) * size.init_std)
        self.gather_block = self.block(cross=True)
        if conditioned:
            self.modulation = Linear(members, width, 2 * width, std=0.0)
        else:
            self.norm = LayerNorm(members, width)
        widths = (width, hidden, hidden, hidden)
        self.head = MLP(members, widths, norm=conditioned, final_activation=True)

    def forward(self, obs: Tensor, goal: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self.mix(obs, goal, condition)
        token = self.output_token.expand(-1, -1, len(obs), -1)
        x = self.gather_block(token, x, condition).squeeze(1)  # (K, 1, B, E) -> (K, B, E)
        if self.conditioned:
            x = modulate(x, *self.modulation(condition).chunk(2, dim=-1))
        else:
            x = self.norm(x)
        return self.head(x)


class EntitySubgoalPolicy(EntityMixer):
    """A subgoal set of a state and a goal: (B, N, D), (B, M, D) -> (B, N, D).

    After the mixing one more self-attention block; LayerNorm and an MLP of each entity. Equivariant
    to the order of the state's entities.
    """

    def __init__(self, spec: ObservationSpec, size: EITSettings) -> None:
        super().__init__(1, spec, size)
        hidden = size.h_dim
        self.last_block = self.block(cross=False)
        self.norm = LayerNorm(1, size.embed_dim)
        self.head = MLP(1, (size.embed_dim, hidden, hidden, hidden, spec.features))

    def forward(self, obs: Tensor, goal: Tensor) -> Tensor:
        x = self.last_block(self.mix(obs, goal))
        return self.head(self.norm(x)).squeeze(0).transpose(0, 1)


class EntityPolicy(nn.Module):
    """Deterministic policy pi(s, g): (B, N, D), (B, M, D) -> (B, A) in (-1, 1)."""

    def __init__(self, spec: ObservationSpec, action_dim: int, size: EITSettings) -> None:
        super().__init__()
        self.trunk = EntityTrunk(1, spec, size)
        self.out = Output(1, size.h_dim, action_dim)

    def forward(self, obs: Tensor, goal: Tensor) -> Tensor:
        return torch.tanh(self.out(self.trunk(obs, goal)).squeeze(0))


class EntityValue(nn.Module):
    """State value V(s, g): (B, N, D), (B, M, D) -> (B,)."""

    def __init__(self, spec: ObservationSpec, size: EITSettings) -> None:
        super().__init__()
        self.trunk = EntityTrunk(1, spec, size)
        self.out = Output(1, size.h_dim, 1)

    def forward(self, obs: Tensor, goal: Tensor) -> Tensor:
        return self.out(self.trunk(obs, goal)).squeeze(-1).squeeze(0)


class EntityCritic(nn.Module):
    """K action values Q(s, a, g): (B, N, D), (B, A), (B, M, D) -> (K, B)."""

    def __init__(
        self, members: int, spec: ObservationSpec, action_dim: int, size: EITSettings
    ) -> None:
        super().__init__()
        self.members = members
        self.embed_action = MLP(members, (action_dim, size.h_dim, size.embed_dim))
        self.trunk = EntityTrunk(members, spec, size, conditioned=True)
        self.out = Output(members, size.h_dim, 1)

    def forward(self, obs: Tensor, action: Tensor, goal: Tensor) -> Tensor:
        condition = self.embed_action(action.expand(self.members, -1, -1))  # (K, B, E)
        return self.out(self.trunk(obs, goal, condition)).squeeze(-1)


def share_member(ensemble: nn.Module, single: nn.Module, member: int = 0) -> nn.Module:
    """Make `single` (one member) a frozen view of a member of `ensemble`: no copy, no gradient."""
    for source, view in zip(ensemble.parameters(), single.parameters(), strict=True):
        view.data = source.data[member : member + 1]
    return single.requires_grad_(False)
