"""What an agent sees: one class per observation kind, and the normaliser they share.

Letters: B rows, S length of an environment's state vector, N entities, D features per entity.
To add a kind: a class here and a line in `OBSERVATIONS`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from agents.base import ObservationSpec
from common.errors import UserError
from envs.base import World

EPSILON = 1e-6  # added to the variance
CLIP = 5.0  # standard deviations


class Observation(ABC):
    """How raw rows of a dataset or an environment become what a network sees, and back.

    Attributes:
        shape: of one encoded observation, (N, D) for entity sets.
        identity_dim: trailing features that say which entity a row is (0 if none).
    """

    kind: ClassVar[str]  # of networks, see `ObservationSpec`

    pixels: ClassVar[bool] = False  # whether the environment has to draw frames
    shape: tuple[int, ...]
    identity_dim: int

    def __init__(self, world: World) -> None:
        self.world = world

    @property
    def column(self) -> str:
        """The dataset's column that it is made from."""
        return self.world.state_column

    @property
    def spec(self) -> ObservationSpec:
        """What networks need to know of it."""
        return ObservationSpec(self.kind, self.shape)

    @abstractmethod
    def identities(self, episodes: int, generator: torch.Generator) -> Tensor:
        """Identity of each entity, constant over an episode: (episodes, N) integers."""

    @abstractmethod
    def encode(self, raw: Tensor, identities: Tensor) -> Tensor:
        """Raw rows (B, S) with their episodes' identities (B, N) -> (B, *shape) float32."""

    @abstractmethod
    def decode(self, obs: Tensor) -> Tensor:
        """(B, *shape), not normalised -> raw rows (B, S); identities are ignored."""

    def align(self, obs: Tensor, identities: Tensor) -> Tensor:
        """A generated observation with its rows in the order of `identities` (N,): (*shape)."""
        return obs


class EntityState(Observation):
    """`ec_state`: one row per entity (agent first) from simulator state, one-hot of its row.

    The one-hot is left out for worlds whose rows say themselves which entity they are of.
    """

    kind = "entities"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.identity_dim = 0 if world.identifies_entities else self._identity_count()
        self.shape = (world.num_entities, world.entity_dim + self.identity_dim)

    def _identity_count(self) -> int:
        return self.world.num_entities

    def identities(self, episodes: int, generator: torch.Generator) -> Tensor:
        return torch.arange(self.world.num_entities).repeat(episodes, 1)

    def encode(self, raw: Tensor, identities: Tensor) -> Tensor:
        entities = self.world.state_entities(raw.float())  # (B, N, D)
        if not self.identity_dim:
            return entities
        return torch.cat([entities, F.one_hot(identities, self.identity_dim).float()], dim=-1)

    def decode(self, obs: Tensor) -> Tensor:
        return self.world.entities_state(obs[..., : self.world.entity_dim])

    def align(self, obs: Tensor, identities: Tensor) -> Tensor:
        """Rows of a generated set have no order of their own, but carry their identities.

        Of all assignments of rows to the wanted identities the one with the largest sum of the
        features in question.
        """
        if not self.identity_dim:
            return obs
        carried = obs[:, -self.identity_dim :][:, identities.to(obs.device)]  # (row, wanted)
        rows, wanted = linear_sum_assignment(carried.cpu().numpy(), maximize=True)
        return obs[torch.from_numpy(rows[wanted.argsort()])]


class GeneralEntityState(EntityState):
    """`ec_state_gen`: the same with identities drawn from a fixed larger set.

    The agent is identity 0; each object gets one of the others, without replacement, once per
    episode. So an agent trained on three objects has met all identities and can act on more.
    """

    def _identity_count(self) -> int:
        return self.world.max_identities

    def identities(self, episodes: int, generator: torch.Generator) -> Tensor:
        order = torch.rand(episodes, self._identity_count() - 1, generator=generator).argsort(dim=1)
        agent = torch.zeros(episodes, 1, dtype=torch.long)
        return torch.cat([agent, 1 + order[:, : self.world.num_entities - 1]], dim=1)


class FlatState(Observation):
    """`state`: the environment's state vector as it is."""

    kind = "flat"
    identity_dim = 0

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.shape = (world.state_dim,)

    def identities(self, episodes: int, generator: torch.Generator) -> Tensor:
        return torch.empty(episodes, 0, dtype=torch.long)

    def encode(self, raw: Tensor, identities: Tensor) -> Tensor:
        return raw.float()

    def decode(self, obs: Tensor) -> Tensor:
        return obs


OBSERVATIONS: dict[str, type[Observation]] = {
    "ec_state": EntityState,
    "ec_state_gen": GeneralEntityState,
    "state": FlatState,
}
IMAGE_KINDS = frozenset({"rgb", "dlp", "vqvae"})  # kinds whose datasets hold images


def make_observation(name: str, world: World) -> Observation:
    """The observation kind `name` on `world`; raises `UserError` for one that agents cannot use."""
    if name not in OBSERVATIONS:
        raise UserError(f"obs={name} cannot be trained on yet; allowed: {', '.join(OBSERVATIONS)}")
    kind = OBSERVATIONS[name]
    problem = world.observation_problem(kind.kind, kind.pixels)
    if problem:
        raise UserError(f"obs={name} is not possible: {problem}")
    return kind(world)


@dataclass
class Normaliser:
    """Per-feature mean and variance (D,) over all entities and steps of the training data.

    The same rule, clip and epsilon serve training and evaluation (differs from the reference, whose
    evaluation uses neither clip nor epsilon).
    """

    mean: Tensor
    var: Tensor

    @classmethod
    def fit(cls, obs: Tensor, chunk: int = 1 << 16) -> "Normaliser":
        """From all rows of a dataset (R, ..., D), `chunk` of them in double precision at a time."""
        count = obs[..., 0].numel()
        total = sum(_sum_rows(part.double()) for part in obs.split(chunk))
        mean = total / count
        squares = sum(_sum_rows((part.double() - mean).square()) for part in obs.split(chunk))
        return cls(mean.float(), (squares / count).float())

    def __call__(self, obs: Tensor) -> Tensor:
        return ((obs - self.mean) / torch.sqrt(self.var + EPSILON)).clamp(-CLIP, CLIP)

    def inverse(self, obs: Tensor) -> Tensor:
        """Undo the scaling (what was clipped stays clipped)."""
        return obs * torch.sqrt(self.var + EPSILON) + self.mean

    def to(self, device: torch.device) -> "Normaliser":
        return Normaliser(self.mean.to(device), self.var.to(device))


def _sum_rows(x: Tensor) -> Tensor:
    """(R, ..., D) -> (D,)."""
    return x.flatten(0, -2).sum(dim=0)
