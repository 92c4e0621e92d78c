"""Observation kinds by their name in `obs`."""

from agents.observations.states import Observation
from common.foundation.errors import UserError
from common.foundation.registry import OBSERVATIONS, lookup
from envs.base import World
from visual_encoders.frozen import EncoderChoice


def make_observation(name: str, world: World, encoder: EncoderChoice | None = None) -> Observation:
    """The observation kind `name` on `world`, by `encoder` if it is of a kind that needs one.

    Raises `UserError` for one that the world refuses, for a missing encoder, or one that does not
    fit.
    """
    kind = lookup(OBSERVATIONS, name, "obs")
    problem = world.observation_problem(kind.kind, kind.pixels)
    if problem:
        raise UserError(f"obs={name} is not possible: {problem}")
    return kind(world, encoder or EncoderChoice(name)) if kind.encoded else kind(world)
