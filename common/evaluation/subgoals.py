"""Subgoals that an agent pursues, counted and told of in an evaluation.

Letters: S length of an environment's state vector.
"""

from typing import Any

import torch
from torch import Tensor

from common.foundation.errors import UserError
from common.foundation.messages import tell
from common.runs.setup import Setup
from common.settings.config import Config

CHANGED = 0.04  # scaled units; an object whose position differs by more is moved


def watching(config: Config, setup: Setup) -> dict[str, Any]:
    """The arguments of `evaluate` that `subgoal_factor_eval` and `debug_subgoals` ask for.

    Raises `UserError` where they make no sense.
    """
    counter = EntityCounter(setup) if config.subgoal_factor_eval else None
    return {"counter": counter, "tell": tell if setup.agent.explains else None}


class EntityCounter:
    """Counts the objects that a subgoal moves, for `subgoal_factor_eval`.

    Raises `UserError` for an agent, an observation or a world with which that makes no sense.
    """

    def __init__(self, setup: Setup) -> None:
        if setup.observation.pixels:
            raise UserError(
                "subgoal_factor_eval=true needs positions of objects, which images do not tell; "
                "use obs=ec_state, ec_state_gen or state"
            )
        if not setup.agent.pursues_subgoals:
            raise UserError(
                "subgoal_factor_eval=true needs an agent that pursues subgoals: agent=sgiql or "
                "hiql with disable_subgoal=false and num_subgoals above 0"
            )
        self.positions = setup.world.entity_positions
        self.positions(torch.zeros(setup.world.state_dim))  # worlds that cannot tell say so now

    def __call__(self, state: Tensor, subgoal: Tensor) -> float:
        """Objects whose position differs between two states (S,) by more than `CHANGED`."""
        moved = self.positions(subgoal) - self.positions(state)
        return float((moved.norm(dim=-1) > CHANGED).sum())
