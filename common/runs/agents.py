"""Agents in checkpoints: stored, restored, loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from common.data.normaliser import Normaliser
from common.foundation.errors import UserError
from common.runs import checkpoint as files
from common.runs.checkpoint import Checkpoint, load_checkpoint
from common.runs.setup import Setup, make_setup, observe
from common.runs.warm_start import brings_goal_policy, load_goal_policy
from common.settings.config import Config
from common.settings.inherit import stored_settings
from envs.make import make_world
from visual_encoders.frozen import KEY


def save_checkpoint(
    path: Path,
    config: Config,
    setup: Setup,
    step: int,
    trainer: dict[str, Any],
    extra: dict[str, Any],
) -> None:
    """Write everything that a run needs to go on, and all that evaluation needs, to one file."""
    normaliser = setup.normaliser.state
    nested = {"agent": setup.agent.state_dict(), "normaliser": normaliser, "trainer": trainer}
    tensors, structure = files.flatten(nested)
    meta = {"config": config.raw, "step": step, "extra": extra, "structure": structure}
    meta |= {"encoder": setup.observation.encoder_sha256, "data": setup.data}
    files.save(path, tensors, meta)


def restore_agent(setup: Setup, checkpoint: Checkpoint, any_encoder: bool = False) -> None:
    """Put a checkpoint's parameters into the agent of `setup`.

    What one that can only act lacks stays untrained.

    Raises `UserError` if they do not fit, or were learned from what another encoder made of images
    and `any_encoder` does not allow it.
    """
    here, there = setup.observation.encoder_sha256, checkpoint.encoder
    if here != there and not any_encoder:
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
    setup.data, setup.checksum = checkpoint.data, checkpoint.checksum
    if not brings_goal_policy(checkpoint, config):
        load_goal_policy(setup, config)
    return setup, config, checkpoint.step
