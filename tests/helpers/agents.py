"""Small agents on made-up observations."""

import functools
from dataclasses import replace
from typing import Any

import torch

from agents.base import Agent, AgentContext, Timestep
from agents.iql.hiql import HIQL
from agents.iql.iql import IQL, IQLSettings
from agents.iql.sgiql import SGIQL
from agents.networks.families import make_networks
from agents.networks.flat import MLPSettings
from agents.observations.spec import ObservationSpec
from common.settings.config import compose
from tests.helpers.networks import SMALL, randomise

MLP = MLPSettings(h_dim=16, conv_channels=(4,))
SETS = ObservationSpec("entities", (3, 7))
PARTICLES = ObservationSpec("entities", (4, 7), views=2, explicit=3)
FLAT = ObservationSpec("flat", (6,))
SMALLER = {  # than in `config.yaml`, or faster
    "hiql": {"tau": 0.1, "alpha": 0.3, "subgoal_k": 5, "subgoal_steps": 4, "num_subgoals": 2},
    "ecdiffuser": {
        **dict.fromkeys(("embed_dim", "h_dim", "n_head", "dropout", "batch_size")),
        **{"horizon": 4, "n_layers": 2, "lr": 1e-3},
        **{"ema_decay": 0.9, "ema_every": 3, "ema_start": 4},
    },
}
SMALLER["td3"] = {"h_dim": 24, "tau": 0.1, "target_period": 1, "random_episodes": 2}
SMALLER["sgiql"] = SMALLER["hiql"] | {"n_diffusion_steps": 5, "n_diffusion_samples": 8}
CPU = torch.device("cpu")


def context(spec: ObservationSpec, device: torch.device = CPU) -> AgentContext:
    networks = make_networks(spec, 2, SMALL, MLP)
    return AgentContext(spec, 2, networks, 0.9, 1e-3, 100, 20.0, device)


@functools.cache
def defaults(agent: str) -> Any:
    return compose([f"agent={agent}"]).agent_settings


def settings_of(agent: str, **changes: Any) -> Any:
    """The section of an agent, small, with changes."""
    return replace(defaults(agent), **(SMALLER[agent] | changes))


def make_iql(**changes: Any) -> IQL:
    torch.manual_seed(0)
    settings = IQLSettings(0.1, 0.3, 0, expectile=0.9, ema_decay=0.0, action_noise=0.0)
    agent = IQL(replace(settings, **changes), context(SETS))
    for learner in agent.learners.values():
        randomise(learner.module)
    randomise(agent.target_critic)
    return agent


def make_sgiql(spec: ObservationSpec = SETS, device: torch.device = CPU, **changes) -> SGIQL:
    torch.manual_seed(0)
    return SGIQL(settings_of("sgiql", **changes), context(spec, device))


def make_hiql(spec: ObservationSpec = FLAT, **changes) -> HIQL:
    torch.manual_seed(0)
    return HIQL(settings_of("hiql", **changes), context(spec))


def generators(seeds: list[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(s) for s in seeds]


def act(agent: Agent, obs, goal, step, memory, seeds: list) -> tuple:
    """Let R environments act; a `memory` of None is that of their first steps."""
    own = seeds if not seeds or isinstance(seeds[0], torch.Generator) else generators(seeds)
    if memory is None:
        memory = torch.stack([agent.begin(g) for g in goal])
    return agent.act(Timestep(obs, goal, torch.as_tensor(step), memory, own))
