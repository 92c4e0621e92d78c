"""ECRL's Entity Interaction Transformer: the action is one more entity (Haramati et al. 2024).

Letters as in `agents.networks.entities`; P entities of a state with, in a critic, its action. Of
particles those with a normalised transparency below zero are hidden: they ask, and nobody attends
to them. Sets may be of any size.
"""

import torch
from torch import Tensor, nn

from agents.networks.entities import EITSettings, ViewEncoding, entities_first
from agents.networks.layers import MLP, Block, LayerNorm, Linear, Output
from agents.observations.spec import ObservationSpec

NORM_EPS = 1e-5
TOKEN_STD = 0.02  # of learned tokens and of the views' vectors


def split_hidden(x: Tensor, spec: ObservationSpec) -> tuple[Tensor, Tensor | None]:
    """Part of a set that networks see, and what is hidden of it: (..., N, D'), (..., N) or None.

    Of particles the transparency is left out. Where all are hidden, none is.
    """
    index = spec.visibility
    if index is None:
        return x, None
    hidden = x[..., index] < 0
    seen = torch.cat([x[..., :index], x[..., index + 1 :]], dim=-1)
    return seen, hidden & ~hidden.all(dim=-1, keepdim=True)


def seen_features(spec: ObservationSpec) -> int:
    """D', the features that `split_hidden` leaves."""
    return spec.features - (spec.visibility is not None)


class TokenTrunk(nn.Module):
    """State and goal sets to one vector per row: (B, N, D), (B, M, D) -> (K, B, E) or (K, B, 2 E).

    Self-attention over the state's entities and the action's token, cross-attention to the goal's
    entities, self-attention; then a learned token, and that of the action, ask the entities.

    Args:
        goal_attention: False leaves the goal out. interaction: False leaves self-attention out.
    """

    def __init__(
        self,
        members: int,
        spec: ObservationSpec,
        size: EITSettings,
        goal_attention: bool = True,
        interaction: bool = True,
    ) -> None:
        super().__init__()
        self.members, self.spec, self.size = members, spec, size
        self.width = width = size.embed_dim  # without action
        features = seen_features(spec)
        self.project = Linear(members, features, width)
        self.project_goal = Linear(members, features, width) if goal_attention else None
        self.encode_view: nn.Module = nn.Identity()
        if spec.views > 1:
            self.encode_view = ViewEncoding(members, spec.views, width, TOKEN_STD)
        self.state_block = self._block(cross=False) if interaction else None
        self.goal_block = self._block(cross=True) if goal_attention else None
        self.mixed_block = self._block(cross=False) if interaction else None
        self.gather_block = self._block(cross=True)
        self.output_token = nn.Parameter(torch.randn(members, 1, 1, width) * TOKEN_STD)
        self.norm = LayerNorm(members, width, NORM_EPS)
        self.read = Linear(members, width, width)

    def _block(self, cross: bool) -> Block:
        size, hidden = self.size, (self.size.h_dim, self.size.h_dim)
        options = {"cross": cross, "dropout": size.dropout, "activation": nn.ReLU, "eps": NORM_EPS}
        return Block(self.members, size.embed_dim, hidden, size.n_head, std=None, **options)

    def forward(self, obs: Tensor, goal: Tensor, action: Tensor | None = None) -> Tensor:
        """With the `action` (K, 1, B, E) as a token, what the action's token reads is appended."""
        x, hidden = self._embed(obs, self.project)
        if action is not None:
            x = torch.cat([action, x], dim=1)  # (K, P, B, E)
            if hidden is not None:
                hidden = torch.cat([torch.zeros_like(hidden[:, :1]), hidden], dim=1)
        if self.state_block is not None:
            x = self.state_block(x, ignored=hidden)
        if self.goal_block is not None:
            target, unseen = self._embed(goal, self.project_goal)
            x = self.goal_block(x, target, ignored=unseen)
        if self.mixed_block is not None:
            x = self.mixed_block(x, ignored=hidden)
        asking = self.output_token.expand(-1, -1, len(obs), -1)
        if action is not None:
            asking = torch.cat([asking, x[:, :1]], dim=1)
        read = self.read(self.norm(self.gather_block(asking, x, ignored=hidden)))
        return torch.cat(read.unbind(1), dim=-1)

    def _embed(self, x: Tensor, project: Linear) -> tuple[Tensor, Tensor | None]:
        """Tokens of a set, and what is hidden of it: (K, N, B, E), (B, N)."""
        seen, hidden = split_hidden(x, self.spec)
        tokens = project(entities_first(seen).expand(self.members, -1, -1, -1))
        return self.encode_view(tokens), hidden


class Head(nn.Sequential):
    """Three hidden layers with ReLU, and the output: (K, B, F) -> (K, B, outputs)."""

    def __init__(self, members: int, inputs: int, hidden: int, outputs: int) -> None:
        widths = (inputs, hidden, hidden, hidden)
        body = MLP(members, widths, final_activation=True, activation=nn.ReLU)
        super().__init__(body, Output(members, hidden, outputs))


class SetPolicy(nn.Module):
    """Deterministic policy pi(s, g) of what a trunk reads: (B, N, D), (B, M, D) -> (B, A)."""

    def __init__(self, trunk: nn.Module, action_dim: int, size: EITSettings) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = Head(1, trunk.width, size.h_dim, action_dim)

    def forward(self, obs: Tensor, goal: Tensor) -> Tensor:
        return torch.tanh(self.head(self.trunk(obs, goal)).squeeze(0))


class SetCritic(nn.Module):
    """K action values Q(s, a, g): (B, N, D), (B, A), (B, M, D) -> (K, B).

    Args:
        action_token: whether the trunk reads the action's embedding, or it is appended to what the
            trunk reads.
    """

    def __init__(
        self, trunk: nn.Module, action_dim: int, size: EITSettings, action_token: bool = False
    ) -> None:
        super().__init__()
        self.trunk, self.action_token, members = trunk, action_token, trunk.members
        width, hidden = size.embed_dim, size.h_dim
        self.embed_action = MLP(members, (action_dim, hidden, width), activation=nn.ReLU)
        self.head = Head(members, trunk.width + width, hidden, 1)

    def forward(self, obs: Tensor, action: Tensor, goal: Tensor) -> Tensor:
        embedded = self.embed_action(action.expand(self.trunk.members, -1, -1))  # (K, B, E)
        if self.action_token:
            read = self.trunk(obs, goal, embedded.unsqueeze(1))
        else:
            read = torch.cat([self.trunk(obs, goal), embedded], dim=-1)
        return self.head(read).squeeze(-1)
