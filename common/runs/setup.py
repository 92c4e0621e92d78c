"""Agents with their worlds and observations, built from settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agents.base import AgentContext
from agents.networks.families import make_networks
from agents.observations.kinds import make_observation
from agents.observations.states import Observation
from common.data.normaliser import Normaliser
from common.foundation.errors import UserError
from common.foundation.registry import AGENTS, lookup
from common.settings.config import Config
from common.settings.online import Schedule
from envs.base import GoalWorld, World
from visual_encoders.frozen import EncoderChoice


@dataclass
class Setup:
    """An agent with the world it acts in and the way it sees it.

    Attributes:
        data: what it learned from, see `common.runs.identity`; None: that is not known.
        checksum: of the checkpoint it was read from.
    """

    agent: Any
    world: World
    observation: Observation
    normaliser: Normaliser
    data: Mapping[str, Any] | None = None
    checksum: str = ""


def observe(config: Config, world: World) -> Observation:
    """The observations that agents get of a world with these settings."""
    return make_observation(config.obs, world, EncoderChoice.of(config))


def learning_steps(config: Config, world: World) -> int:
    """Steps, at most, of an episode that an agent learns from online."""
    return config.online.max_episode_steps or world.learning_steps


def schedule_of(config: Config, world: World) -> Schedule:
    """Cycles of acting and updates of an agent that learns online."""
    return config.online.schedule(learning_steps(config, world))


def make_setup(
    config: Config,
    world: World,
    observation: Observation,
    normaliser: Normaliser,
    average: Callable[[Tensor], Tensor] | None = None,
) -> Setup:
    """Build an untrained agent for a world; its device is the normaliser's.

    Args:
        average: see `AgentContext`.
    """
    context = AgentContext(
        spec=observation.spec,
        action_dim=world.actions.size,
        networks=make_networks(
            observation.spec, world.actions.size, config.arch_eit, config.arch_mlp
        ),
        gamma=config.gamma,
        lr=config.lr,
        lr_decay_steps=config.lr_decay_steps,
        grad_clip_norm=config.grad_clip_norm,
        device=normaliser.mean.device,
        average=average,
        reward_range=world.reward_range if config.reward == "env" else (-1.0, 0.0),
        fused_adam=config.fused_adam,
        burst=schedule_of(config, world).updates,
    )
    torch.manual_seed(config.seed)  # of the initial parameters
    agent = lookup(AGENTS, config.agent, "agent")(config.agent_settings, context)
    smaller = isinstance(world, GoalWorld) and world.goal_dim < world.state_dim
    if smaller and agent.pursues_subgoals and not observation.pixels:
        raise UserError(
            f"agent={config.agent} needs goals of as many entities as states have; "
            f"set {config.agent}.disable_subgoal=true to act on those of task={world.name}"
        )
    return Setup(agent, world, observation, normaliser)
