"""Worlds for tests, with the settings of `config.yaml` but for a few, and random episodes."""

import dataclasses
import functools
from typing import Any

import gymnasium as gym
import numpy as np

from common.foundation.registry import world_class
from envs.make import make_settings

_settings = functools.cache(make_settings)  # reading YAML takes a tenth of a second


def world_of(
    task: str, *, multiview: bool = False, max_episode_steps: int = 20, **changes: Any
) -> Any:
    """Return the world of `task` with `changes` to its section of `config.yaml`."""
    settings = dataclasses.replace(_settings(task), **changes)
    arguments = {"max_episode_steps": max_episode_steps, "multiview": multiview}
    return world_class(task).of_task(task, settings, **arguments)


def random_episode(env: gym.Env, seed: int, steps: int) -> list[dict[str, Any]]:
    """Return the infos of an episode: the reset's, then those of `steps` random actions."""
    actions = np.random.default_rng(seed).uniform(-1, 1, (steps, *env.action_space.shape))
    infos = [env.reset(seed=seed)[1]]
    infos += [env.step(action)[4] for action in actions.astype(np.float32)]
    return infos
