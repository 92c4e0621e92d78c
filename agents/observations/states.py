"""Observations: one class per kind.

Letters: B rows, S length of an environment's state vector, N entities, D features per entity; V
views of H x W pixels. To add a kind: a class (`Images` for what is made of images) and a line in
`OBSERVATIONS`.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from agents.observations.spec import ObservationSpec
from common.data.normaliser import Normaliser
from datasets.source import EpisodeSource
from envs.base import World


class Observation(ABC):
    """The way from raw rows of a dataset or an environment to what a network sees, and back.

    A raw row is a state (S,) or, of kinds with `pixels`, an image (H, W, 3) or (V, H, W, 3) uint8.

    Attributes:
        shape: of one encoded observation, (N, D) for entity sets.
        identity_dim: trailing features that say which entity a row is (0 if none).
        collect_overrides: settings of `collect.py`, besides the world's, that store its raw rows.
    """

    kind: ClassVar[str]  # of networks, see `ObservationSpec`

    pixels: ClassVar[bool] = False  # whether the environment has to draw frames
    encoded: ClassVar[bool] = False  # whether a frozen encoder makes it, see `Latents`
    dtype: ClassVar[torch.dtype] = torch.float32  # of encoded observations
    shape: tuple[int, ...]
    identity_dim: int = 0
    collect_overrides: tuple[str, ...] = ()

    def __init__(self, world: World) -> None:
        self.world = world

    @property
    def column(self) -> str:
        """The dataset's column that it is made from."""
        return self.world.state_column

    @property
    def spec(self) -> ObservationSpec:
        """Its description for networks."""
        return ObservationSpec(self.kind, self.shape)

    @property
    def encoder_sha256(self) -> str | None:
        """Fingerprint of its encoder, if it has one."""
        return None

    def check(self, dataset: EpisodeSource) -> None:
        """Raise `UserError` unless a dataset of this world has the raw rows."""
        dataset.column(self.column)

    def derived(self, dataset: EpisodeSource, div: int, workers: int) -> dict[str, tuple[str, str]]:
        """Its makings that are kept on disk: name -> place and digest. As for `Latents.open`."""
        return {}

    def identities(self, episodes: int, generator: torch.Generator) -> Tensor:
        """Identity of each entity, constant over an episode: (episodes, N) integers.

        No columns where entities are not told apart.
        """
        return torch.empty(episodes, 0, dtype=torch.long)

    @abstractmethod
    def encode(self, raw: Tensor, identities: Tensor) -> Tensor:
        """Raw rows (B, ...) with their episodes' identities (B, N) -> (B, *shape) of `dtype`."""

    def picture(self, obs: Tensor, goal: np.ndarray) -> np.ndarray | None:
        """A generated observation (*shape), not normalised, as a frame (H, W, 3) uint8.

        What an observation does not tell, such as a background, is that of the episode's `goal`, a
        raw row. None of kinds whose environments draw generated states, or that generate nothing.
        """
        return None

    def fit(self, obs: Tensor) -> "Normaliser":
        """The normaliser for these rows (R, *shape) of training data."""
        return Normaliser.fit(obs)

    def start(self, device: torch.device) -> Normaliser:
        """The normaliser before there are data, which `Normaliser.merge` then adds."""
        return Normaliser.start(self.shape[-1], device)

    def align(self, obs: Tensor, identities: Tensor) -> Tensor:
        """A generated observation with its rows in the order of `identities` (N,): (*shape)."""
        return obs


class States(Observation):
    """Observations made of the state vector, which can be turned back into it."""

    @abstractmethod
    def decode(self, obs: Tensor) -> Tensor:
        """(B, *shape), not normalised -> states (B, S); identities are ignored."""


class EntityState(States):
    """`ec_state`: one row per entity (agent first) from simulator state, one-hot of its row.

    The one-hot is left out for worlds whose rows say themselves which entity they are of.
    """

    kind = "entities"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.identity_dim = 0 if world.identifies_entities else self._identity_count()
        self.shape = (world.num_entities, world.entity_dim + self.identity_dim)

    def _identity_count(self) -> int:
        return 1 + max(self.world.entity_identities)

    def identities(self, episodes: int, generator: torch.Generator) -> Tensor:
        return torch.tensor(self.world.entity_identities).repeat(episodes, 1)

    def encode(self, raw: Tensor, identities: Tensor) -> Tensor:
        entities = self.world.state_entities(raw.float())  # (B, N, D)
        if not self.identity_dim:
            return entities
        identities = identities[:, : entities.shape[1]]  # a goal may have fewer entities
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
        return torch.cat([agent, 1 + order], dim=1)[:, self.world.entity_identities]


class FlatState(States):
    """`state`: the environment's state vector as it is."""

    kind = "flat"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.shape = (world.state_dim,)

    def encode(self, raw: Tensor, identities: Tensor) -> Tensor:
        return raw.float()

    def decode(self, obs: Tensor) -> Tensor:
        return obs
