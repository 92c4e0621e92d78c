"""The networks that fit an observation: one family per kind, all with the same methods.

Agents ask `context.networks` and so know nothing of observations. To add a kind: a class here and a
line in `FAMILIES`. Letters: B batch, K members, A action size; observations are (B, *shape).

    policy()          pi(s, g): (B, *shape) twice -> (B, A) in (-1, 1)
    value()           V(s, g): (B, *shape) twice -> (B,)
    critic(K)         K members of Q(s, a, g): (B, *shape), (B, A), (B, *shape) -> (K, B)
    subgoal_policy()  a deterministic subgoal of (s, g): (B, *shape) twice -> (B, *shape)
    diffuser(T)       diffusion of subgoals in T steps, see `agents.networks.diffusion`
"""

from dataclasses import dataclass

from agents.networks import entities, flat, smorl, tokens
from agents.networks.diffusion import FlatDiffuser, SubgoalDiffuser
from agents.networks.entities import EITSettings
from agents.networks.flat import MLPSettings, Pair
from agents.networks.images import ImagePair
from agents.observations.spec import ObservationSpec
from common.foundation.errors import UserError

# Entity networks of this width keep two threads busy by themselves: the paper's size did 1.27
# updates/s in one process of two threads and 1.05 in two of one; width 32 did 9.7 and 15.3 (two CPU
# cores).
TWO_THREAD_WIDTH = 64

NO_IMAGES = "subgoals cannot be images; use agent=iql, or obs=state, vqvae or dlp"


@dataclass(frozen=True)
class EntityNetworks:
    """Sets of entities or particles: the Entity Interaction Transformer.

    Attributes:
        acting_threads: CPU threads that a policy's call for some environments keeps busy; 0 = all.
    """

    spec: ObservationSpec
    action_dim: int
    eit: EITSettings
    mlp: MLPSettings

    # The policies of the paper's size take as long on one thread for 20 environments as on two (2.9
    # ms, two CPU cores), and a second one, which waits busily for more, keeps a simulating process
    # off its core: 12.6 instead of 16.4 ms of physics without it.
    acting_threads = 1

    @property
    def busy_threads(self) -> bool:
        """True if an update keeps two CPU threads busy: a second process then gains nothing."""
        return self.eit.embed_dim >= TWO_THREAD_WIDTH

    def policy(self) -> entities.EntityPolicy:
        return entities.EntityPolicy(self.spec, self.action_dim, self.eit)

    def value(self) -> entities.EntityValue:
        return entities.EntityValue(self.spec, self.eit)

    def critic(self, members: int) -> entities.EntityCritic:
        return entities.EntityCritic(members, self.spec, self.action_dim, self.eit)

    def subgoal_policy(self) -> entities.EntitySubgoalPolicy:
        return entities.EntitySubgoalPolicy(self.spec, self.eit)

    def diffuser(self, steps: int) -> SubgoalDiffuser:
        return SubgoalDiffuser(self.spec.features, self.eit, steps, self.spec.views)


@dataclass(frozen=True)
class FlatNetworks:
    """Flat vectors: MLPs on state and goal side by side."""

    spec: ObservationSpec
    action_dim: int
    eit: EITSettings
    mlp: MLPSettings

    # Not measured; products of 512 rows by 512 features are large enough for two threads.
    busy_threads = True
    acting_threads = 1

    def policy(self) -> flat.FlatPolicy:
        return flat.FlatPolicy(self._pair(1), self.mlp.h_dim, self.action_dim)

    def value(self) -> flat.FlatValue:
        return flat.FlatValue(self._pair(1), self.mlp.h_dim)

    def critic(self, members: int) -> flat.FlatCritic:
        return flat.FlatCritic(self._pair(members), self.mlp.h_dim, more=self.action_dim)

    def subgoal_policy(self) -> flat.FlatSubgoalPolicy:
        return flat.FlatSubgoalPolicy(self._pair(1), self.mlp.h_dim, self.spec.features)

    def diffuser(self, steps: int) -> FlatDiffuser:
        return FlatDiffuser(self.spec.features, self.eit, steps, self.spec.views)

    def _pair(self, members: int) -> Pair:
        return Pair(members, self.spec.features)


@dataclass(frozen=True)
class TokenNetworks(EntityNetworks):
    """ECRL's policy and critics on sets, see `agents.networks.tokens`; False for ablations."""

    action_token: bool = True
    goal_attention: bool = True
    interaction: bool = True

    def policy(self) -> tokens.SetPolicy:
        return tokens.SetPolicy(self._trunk(1), self.action_dim, self.eit)

    def critic(self, members: int) -> tokens.SetCritic:
        trunk = self._trunk(members)
        return tokens.SetCritic(trunk, self.action_dim, self.eit, self.action_token)

    def _trunk(self, members: int) -> tokens.TokenTrunk:
        options = self.goal_attention, self.interaction
        return tokens.TokenTrunk(members, self.spec, self.eit, *options)


class SmorlNetworks(EntityNetworks):
    """Policy and critics of one goal entity at a time, see `agents.networks.smorl`."""

    def policy(self) -> tokens.SetPolicy:
        trunk = smorl.SmorlTrunk(1, self.spec, self.eit)
        return tokens.SetPolicy(trunk, self.action_dim, self.eit)

    def critic(self, members: int) -> tokens.SetCritic:
        trunk = smorl.SmorlTrunk(members, self.spec, self.eit)
        return tokens.SetCritic(trunk, self.action_dim, self.eit)


class PlainNetworks(FlatNetworks):
    """ECRL's policy and critics without structure."""

    def policy(self) -> flat.PlainPolicy:
        return flat.PlainPolicy(self._pair(1), self.mlp.h_dim, self.action_dim)

    def critic(self, members: int) -> flat.PlainCritic:
        width = self.spec.features // self.spec.views
        return flat.PlainCritic(self._pair(members), self.mlp.h_dim, self.action_dim, width)


class ImageNetworks(FlatNetworks):
    """Raw images: the flat networks behind a convolutional encoder. They make no subgoals."""

    acting_threads = 0  # convolutions of every frame

    # The reference's subgoal policy has as many outputs as an image has columns: no image either.
    def subgoal_policy(self) -> flat.FlatSubgoalPolicy:
        raise UserError(NO_IMAGES)

    def diffuser(self, steps: int) -> FlatDiffuser:
        raise UserError(NO_IMAGES)

    def _pair(self, members: int) -> ImagePair:
        channels = self.spec.shape[0]
        return ImagePair(members, channels, self.mlp.conv_channels, self.mlp.h_dim)


Networks = EntityNetworks | FlatNetworks
FAMILIES = {"entities": EntityNetworks, "flat": FlatNetworks, "image": ImageNetworks}


def make_networks(
    spec: ObservationSpec, action_dim: int, eit: EITSettings, mlp: MLPSettings
) -> Networks:
    """The family for the kind of observation that `spec` describes."""
    return FAMILIES[spec.kind](spec, action_dim, eit, mlp)
