"""Policy, value and critic over flat observations: MLPs on state and goal.

Letters: K members of an ensemble, B batch, S features of an observation, A action size, H hidden
width, F features of a state and a goal taken together.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from agents.networks.layers import MLP, Output
from common.settings.schema import setting

HIDDEN_LAYERS = 4


@dataclass(frozen=True)
class MLPSettings:
    """Section `arch_mlp`: size of every network on flat observations and images."""

    h_dim: int = setting(low=1)
    conv_channels: tuple[int, ...] = setting(low=1)


class Pair(nn.Module):
    """State and goal side by side: (B, S), (B, S) -> (K, B, F), the same for each member.

    Another one, of images, is `agents.networks.images.ImagePair`.
    """

    def __init__(self, members: int, features: int) -> None:
        super().__init__()
        self.members = members
        self.width = 2 * features  # F

    def forward(self, obs: Tensor, goal: Tensor) -> Tensor:
        return torch.cat([obs, goal], dim=-1).expand(self.members, -1, -1)


class FlatHead(nn.Sequential):
    """Hidden layers, of an MLP with these `options` after each, then Linear to the output."""

    def __init__(
        self,
        members: int,
        fan_in: int,
        hidden: int,
        outputs: int,
        layers: int = HIDDEN_LAYERS,
        **options: Any,
    ) -> None:
        widths = (fan_in, *(hidden,) * layers)
        body = MLP(members, widths, final_activation=True, **options)
        super().__init__(body, Output(members, hidden, outputs))


class FlatNetwork(nn.Module):
    """Base of all of them: a head on a pair, and on so many `more` inputs."""

    head_options: ClassVar[dict[str, Any]] = {}  # see `FlatHead`

    def __init__(self, pair: nn.Module, hidden: int, outputs: int = 1, more: int = 0) -> None:
        super().__init__()
        self.pair = pair
        inputs = pair.width + more
        self.head = FlatHead(pair.members, inputs, hidden, outputs, **self.head_options)


class FlatPolicy(FlatNetwork):
    """Deterministic policy pi(s, g): (B, S), (B, S) -> (B, A) in (-1, 1)."""

    def forward(self, obs: Tensor, goal: Tensor) -> Tensor:
        return torch.tanh(self.head(self.pair(obs, goal)).squeeze(0))


class FlatSubgoalPolicy(FlatNetwork):
    """Subgoal of a state and a goal: (B, S), (B, S) -> (B, S)."""

    def forward(self, obs: Tensor, goal: Tensor) -> Tensor:
        return self.head(self.pair(obs, goal)).squeeze(0)


class FlatValue(FlatNetwork):
    """State value V(s, g): (B, S), (B, S) -> (B,)."""

    head_options: ClassVar[dict[str, Any]] = {"norm": True}

    def forward(self, obs: Tensor, goal: Tensor) -> Tensor:
        return self.head(self.pair(obs, goal)).squeeze(-1).squeeze(0)


class FlatCritic(FlatNetwork):
    """K action values Q(s, a, g), K that of the pair: (B, S), (B, A), (B, S) -> (K, B)."""

    head_options: ClassVar[dict[str, Any]] = {"norm": True}

    def forward(self, obs: Tensor, action: Tensor, goal: Tensor) -> Tensor:
        action = action.expand(self.pair.members, -1, -1)
        return self.head(torch.cat([self.pair(obs, goal), action], dim=-1)).squeeze(-1)


PLAIN = {"layers": 3, "activation": nn.ReLU}  # ECRL's networks without structure


class PlainPolicy(FlatPolicy):
    """ECRL's policy without structure."""

    head_options: ClassVar[dict[str, Any]] = PLAIN


class PlainCritic(FlatCritic):
    """ECRL's critics without structure: of the action they see an embedding of `width` features."""

    head_options: ClassVar[dict[str, Any]] = PLAIN

    def __init__(self, pair: nn.Module, hidden: int, action_dim: int, width: int) -> None:
        super().__init__(pair, hidden, more=width)
        self.embed_action = MLP(pair.members, (action_dim, hidden, width), activation=nn.ReLU)

    def forward(self, obs: Tensor, action: Tensor, goal: Tensor) -> Tensor:
        embedded = self.embed_action(action.expand(self.pair.members, -1, -1))
        return super().forward(obs, embedded, goal)
