"""EC-Diffuser on made-up windows."""

import torch

from agents.ecdiffuser.ecdiffuser import ECDiffuser
from agents.observations.spec import ObservationSpec
from tests.helpers.agents import SETS, context, settings_of
from tests.helpers.networks import randomise


def make(spec: ObservationSpec = SETS, **changes) -> ECDiffuser:
    """An untrained agent whose every parameter matters."""
    torch.manual_seed(0)
    agent = ECDiffuser(settings_of("ecdiffuser", **changes), context(spec))
    randomise(agent.diffuser)
    agent.average.load_state_dict(agent.diffuser.state_dict())
    return agent
