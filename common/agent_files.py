"""Agents and what they act in: built from settings, stored in checkpoints, loaded again."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents import AGENTS
from agents.base import AgentContext
from agents.families import make_networks
from common import checkpoint as files
from common.checkpoint import Checkpoint, load_checkpoint
from common.config import Config
from common.errors import UserError
from common.evaluation_settings import stored_settings
from common.observations import Normaliser, Observation, make_observation
from common.pretrained import brings_goal_policy, load_goal_policy
from common.registry import lookup
from envs import world_class
from envs.base import World
from visual_encoders.frozen import KEY, EncoderChoice


@dataclass
class Setup:
    """An agent with the world it acts in and the way it sees it."""

    agent: Any
    world: World
    observation: Observation
    normaliser: Normaliser


def make_world(config: Config) -> World:
    """The world that the settings describe."""
    return world_class(config.task).of_task(
        config.task,
        config.world,
        max_episode_steps=config.max_episode_steps,
        multiview=config.multiview,
    )


def observe(config: Config, world: World) -> Observation:
    """What agents see of a world with these settings."""
    particles = config.dlp_post_training_num_kp
    encoder = EncoderChoice(
        config.obs,
        config.rep_model_checkpoint,
        config.rep_model_device,
        particles=None if particles == -1 else particles,
    )
    return make_observation(config.obs, world, encoder)


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
        action_dim=world.action_dim,
        networks=make_networks(
            observation.spec, world.action_dim, config.arch_eit, config.arch_mlp
        ),
        gamma=config.gamma,
        lr=config.lr,
        lr_decay_steps=config.lr_decay_steps,
        grad_clip_norm=config.grad_clip_norm,
        device=normaliser.mean.device,
        average=average,
        fused_adam=config.fused_adam,
    )
    torch.manual_seed(config.seed)  # of the initial parameters
    agent = lookup(AGENTS, config.agent, "agent")(config.agent_settings, context)
    return Setup(agent, world, observation, normaliser)


def save_checkpoint(
    path: Path,
    config: Config,
    setup: Setup,
    step: int,
    trainer: dict[str, Any],
    extra: dict[str, Any],
) -> None:
    """Write everything that a run needs to go on, and all that evaluation needs, to one file."""
    normaliser = {"mean": setup.normaliser.mean, "var": setup.normaliser.var}
    nested = {"agent": setup.agent.state_dict(), "normaliser": normaliser, "trainer": trainer}
    tensors, structure = files.flatten(nested)
    meta = {"config": config.raw, "step": step, "extra": extra, "structure": structure}
    meta["encoder"] = setup.observation.encoder_sha256
    files.save(path, tensors, meta)


def restore_agent(setup: Setup, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's parameters into the agent of `setup`.

    What one that can only act lacks stays untrained.

    Raises `UserError` if they do not fit, or were learned from what another encoder made of images.
    """
    here, there = setup.observation.encoder_sha256, checkpoint.encoder
    if here != there:
        raise UserError(
            f"{checkpoint.path} learned from an encoder with SHA-256 {there!s:.12}, the one given "
            f"has {here!s:.12}; set {KEY} to the former (it was {checkpoint.raw.get(KEY)} then)"
        )
    untrained = setup.agent.state_dict() if checkpoint.acting_only else {}
    try:
        setup.agent.load_state_dict(untrained | checkpoint.state["agent"])
    except (RuntimeError, KeyError) as error:
        trained = checkpoint.raw["agent"]
        raise UserError(
            f"{checkpoint.path} holds a {trained} agent whose parameters do not fit: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error


def load_agent(
    path: Path,
    device: torch.device,
    configure: Callable[[dict[str, Any]], Config] = stored_settings,
) -> tuple[Setup, Config, int]:
    """Rebuild the agent of a checkpoint with its world, settings and number of updates.

    Args:
        configure: makes settings from the stored ones, to which evaluation has changes.
    """
    checkpoint = load_checkpoint(path)
    config = configure(checkpoint.raw)
    world = make_world(config)
    observation = observe(config, world)
    normaliser = Normaliser(**checkpoint.state["normaliser"]).to(device)
    setup = make_setup(config, world, observation, normaliser)
    restore_agent(setup, checkpoint)
    if not brings_goal_policy(checkpoint, config):
        load_goal_policy(setup, config)
    return setup, config, checkpoint.step
