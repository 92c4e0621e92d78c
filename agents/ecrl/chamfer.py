"""Rewards of particles by what they look like and where they are (ECRL's image rewards).

Letters: B batch, V views, P particles of a view, Q of the other set, F visual features. Particles
are told apart by looks alone, and distances are of places alone.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from agents.observations.spec import ObservationSpec
from common.settings.schema import setting

REWARD_SCALE = 2.0
NOTHING = 1.0  # distance of two views of which one shows no object
PLACES = 2  # leading features of a particle: its position


@dataclass(frozen=True)
class ChamferSettings:
    """Keys of an agent's section that choose and shape a reward of particles."""

    reward: str = setting(choices=("world", "chamfer", "plain_chamfer"))
    chamfer_threshold: float = setting(low=0.0)
    chamfer_unmatched: float = setting(low=0.0)
    chamfer_least: float = setting(high=0.0)
    object_classifier: str | None = setting()


class Objects(NamedTuple):
    """Particles of all views, and which of them are objects.

    Attributes:
        place: (B, V, P, 2). looks: (B, V, P, F). kept: (B, V, P) booleans.
    """

    place: Tensor
    looks: Tensor
    kept: Tensor


class Matches(NamedTuple):
    """Findings of each particle of a set in another: (B, V, P) each.

    Attributes:
        partner: index of the other set's object that looks most like it. distance: L1, to its
            place. found: whether it is an object, and one that looks like it is near enough.
    """

    partner: Tensor
    distance: Tensor
    found: Tensor


def match(source: Objects, target: Objects, threshold: float) -> Matches:
    """The nearest in looks, which must not differ by more than `threshold` (squared)."""
    difference = source.looks.unsqueeze(3) - target.looks.unsqueeze(2)
    unlike = difference.square().sum(dim=-1)  # (B, V, P, Q)
    nearest = unlike.masked_fill(~target.kept.unsqueeze(2), torch.inf).min(dim=-1)
    index = nearest.indices.unsqueeze(-1).expand(-1, -1, -1, PLACES)
    distance = (source.place - target.place.gather(2, index)).abs().sum(dim=-1)
    return Matches(nearest.indices, distance, source.kept & (nearest.values <= threshold))


def density_aware(
    source: Objects, target: Objects, threshold: float, unmatched: float = 1.0
) -> Tensor:
    """Distance from source to target of each view (B, V), of objects however many particles each.

    D = [ sum_b 1/m_b sum_{a of b} |q_a - q_b|_1 + unmatched u ] / max(|b| + u, 1), over those
    targets b that m_b > 0 sources chose; u = 1 if a source found none.
    """
    matches = match(source, target, threshold)
    found, counts = matches.found.float(), torch.zeros_like(target.kept, dtype=torch.float)
    near = counts.scatter_add(2, matches.partner, found * matches.distance)
    counts = counts.scatter_add(2, matches.partner, found)
    lost = (source.kept & ~matches.found).any(dim=-1).float()
    total = (near / counts.clamp(min=1)).sum(dim=-1) + unmatched * lost
    return total / ((counts > 0).sum(dim=-1) + lost).clamp(min=1)


def plain(source: Objects, target: Objects, threshold: float, unmatched: float = 1.0) -> Tensor:
    """Mean over the source's objects of each view (B, V); one that finds none is as far."""
    matches = match(source, target, threshold)
    distance = torch.where(matches.found, matches.distance, unmatched) * source.kept
    return distance.sum(dim=-1) / source.kept.sum(dim=-1).clamp(min=1)


DISTANCES = {"chamfer": density_aware, "plain_chamfer": plain}


@dataclass(frozen=True)
class ChamferReward:
    """Reward of particles reached when others are wanted, not normalised: (B, N, D) twice -> (B,).

    -2 times the mean over views of both directions' distances. With the density-aware one in
    [-8, 0], since places lie in [-1, 1]^2.

    Attributes:
        objects: says of visual features (..., F) which are those of objects; None: all are.
    """

    settings: ChamferSettings
    spec: ObservationSpec
    objects: nn.Module | None = None

    @torch.no_grad()
    def __call__(self, reached: Tensor, asked: Tensor) -> Tensor:
        state, goal = self._objects(reached), self._objects(asked)
        distance, s = DISTANCES[self.settings.reward], self.settings
        options = s.chamfer_threshold, s.chamfer_unmatched
        both = (distance(goal, state, *options) + distance(state, goal, *options)) / 2
        seen = state.kept.any(dim=-1) & goal.kept.any(dim=-1)
        return -REWARD_SCALE * torch.where(seen, both, NOTHING).mean(dim=-1)

    def _objects(self, x: Tensor) -> Objects:
        x = x.unflatten(1, (self.spec.views, -1))
        looks = x[..., self.spec.explicit :]
        if self.objects is None:
            kept = torch.ones_like(looks[..., 0], dtype=torch.bool)
        else:
            kept = self.objects(looks)
        return Objects(x[..., :PLACES], looks, kept)
