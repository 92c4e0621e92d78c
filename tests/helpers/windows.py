"""EC-Diffuser on made-up windows."""

import torch

from agents.ecdiffuser.ecdiffuser import ECDiffuser, ECDiffuserSettings
from agents.observations.spec import ObservationSpec
from tests.helpers.agents import SETS, context
from tests.helpers.networks import randomise

SETTINGS = {
    "horizon": 4,
    "exe_steps": 1,
    "n_diffusion_steps": 5,
    "embed_dim": None,
    "h_dim": None,
    "n_head": None,
    "n_layers": 2,
    "dropout": None,
    "action_weight": 10.0,
    "loss_discount": 1.0,
    "predict": "x0",
    "loss": "l1",
    "goal": "policy",
    "normalizer": "limits",
    "lr": 1e-3,
    "batch_size": None,
    "grad_clip_norm": None,
    "ema_decay": 0.9,
    "ema_every": 3,
    "ema_start": 4,
    "adaln_zero": False,
}


def make(spec: ObservationSpec = SETS, **changes) -> ECDiffuser:
    """An untrained agent whose every parameter matters."""
    torch.manual_seed(0)
    agent = ECDiffuser(ECDiffuserSettings(**(SETTINGS | changes)), context(spec))
    randomise(agent.diffuser)
    agent.average.load_state_dict(agent.diffuser.state_dict())
    return agent
