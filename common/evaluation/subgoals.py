"""What an evaluation can tell about the subgoals that an agent pursues.

Letters: S length of an environment's state vector.
"""

from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from agents.iql.subgoals import Proposal
from common.foundation.errors import UserError
from common.runs.setup import Setup
from common.settings.config import Config

CHANGED = 0.04  # scaled units; an object whose position differs by more is moved (environments 9)


def watching(config: Config, setup: Setup) -> dict[str, Any]:
    """The arguments of `evaluate` that `subgoal_factor_eval` and `debug_subgoals` ask for.

    Raises `UserError` where they make no sense.
    """
    told = getattr(config.agent_settings, "debug_subgoals", False) and setup.agent.pursues_subgoals
    counter = EntityCounter(setup) if config.subgoal_factor_eval else None
    return {"counter": counter, "tell": tqdm.write if told else None}


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


HEADER = " episode  step   V(s,g)   in reach   best V(c,g)   its V(s,c)   pursued"


def describe(proposal: Proposal, row: int, episode: int, step: int) -> str:
    """One line under `HEADER` on the new subgoal of an environment, a row of the proposal.

    The candidates c in reach are those with V(s,c) of at least the radius, or all without one; the
    best of them has the highest V(c,g).
    """
    reach, remaining = proposal.reach[row], proposal.remaining[row]
    radius = -torch.inf if proposal.radius is None else proposal.radius
    near = reach >= radius
    count = f"{int(near.sum())}/{len(near)}"
    best = remaining.masked_fill(~near, -torch.inf).argmax()
    values = [f"{x:.2f}" if near.any() else "-" for x in (remaining[best], reach[best])]
    index = int(proposal.index[row])
    pursued = "goal" if index < 0 else f"candidate {index}"
    return (
        f"{episode:8d}{step:6d}{proposal.direct[row]:9.2f}{count:>11}"
        f"{values[0]:>14}{values[1]:>13}   {pursued}"
    )
