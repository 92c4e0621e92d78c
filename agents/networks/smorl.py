"""The attention of SMORL as ECRL compares with it: one goal entity at a time, no interaction.

Zadaianchuk et al. 2021, re-implemented by Haramati et al. 2024. Letters as in
`agents.networks.entities`; V views. Of a goal the last entity of each view is asked for.
"""

import torch
from torch import Tensor, nn

from agents.networks.entities import EITSettings, entities_first
from agents.networks.layers import Attention, Linear
from agents.networks.tokens import TOKEN_STD, seen_features, split_hidden
from agents.observations.spec import ObservationSpec


class ViewAttention(nn.Module):
    """Gatherings of a goal entity and a learned token from a view's entities: (K, B, 3 E).

    Plain attention, without residuals and norms; then the goal's embedding.
    """

    def __init__(self, members: int, size: EITSettings) -> None:
        super().__init__()
        width, heads = size.embed_dim, size.n_head
        self.conditioned = Attention(members, width, heads, cross=True, std=None)
        self.unconditioned = Attention(members, width, heads, cross=True, std=None)
        self.token = nn.Parameter(torch.randn(members, 1, 1, width) * TOKEN_STD)

    def forward(self, state: Tensor, goal: Tensor, hidden: Tensor | None) -> Tensor:
        """state (K, N, B, E), goal (K, 1, B, E), hidden (B, N) or None."""
        token = self.token.expand(-1, -1, goal.shape[2], -1)
        asked = self.conditioned(goal, state, ignored=hidden)
        general = self.unconditioned(token, state, ignored=hidden)
        return torch.cat([asked, general, goal], dim=-1).squeeze(1)


class SmorlTrunk(nn.Module):
    """State and goal sets to one vector per row: (B, N, D), (B, M, D) -> (K, B, 3 E V)."""

    def __init__(self, members: int, spec: ObservationSpec, size: EITSettings) -> None:
        super().__init__()
        self.members, self.spec = members, spec
        features = seen_features(spec)
        self.width = 3 * size.embed_dim * spec.views
        self.project = Linear(members, features, size.embed_dim)
        self.project_goal = Linear(members, features, size.embed_dim)
        self.views = nn.ModuleList(ViewAttention(members, size) for _ in range(spec.views))

    def forward(self, obs: Tensor, goal: Tensor) -> Tensor:
        state, hidden = split_hidden(obs.unflatten(1, (self.spec.views, -1)), self.spec)
        goal = goal.unflatten(1, (self.spec.views, -1))
        wanted, _ = split_hidden(goal[:, :, -1:], self.spec)
        read = []
        for view, attend in enumerate(self.views):
            sets = self._tokens(state[:, view], self.project)
            target = self._tokens(wanted[:, view], self.project_goal)
            read.append(attend(sets, target, None if hidden is None else hidden[:, view]))
        return torch.cat(read, dim=-1)

    def _tokens(self, x: Tensor, project: Linear) -> Tensor:
        return project(entities_first(x).expand(self.members, -1, -1, -1))
