"""Worlds by the name of their task, and their Gymnasium environments."""

import dataclasses
from typing import Any

import gymnasium

from common.foundation.registry import load, world_class
from common.settings.config import Config, read_yaml
from common.settings.schema import build
from envs.base import World

# OGBench registers a `visual-scene-v0` of its own; with a namespace both can be made.
GYMNASIUM_IDS = {
    "manipobj-v0": "manipobj-v0",
    "pushing-v0": "pushing-v0",
    "pushtetris-v0": "pushtetris-v0",
    "hecrl/visual-scene-v0": "visual-scene-v0",
}


def make_world(config: Config) -> World:
    """The world that the settings describe."""
    return world_class(config.task).of_task(
        config.task,
        config.world,
        max_episode_steps=config.max_episode_steps,
        multiview=config.multiview,
    )


def make_settings(task: str, **changes: Any) -> Any:
    """The section of a task's world in `config.yaml` with `changes`, checked."""
    world = world_class(task)
    section = read_yaml()["env_kwargs"][world.section]
    return build(world.Settings, section | changes, f"env_kwargs.{world.section}")


def make_env(task: str, **arguments: Any) -> gymnasium.Env:
    """The environment of one of our tasks, without time limit; `config.yaml` has the defaults.

    Args:
        **arguments: settings of the world, and arguments of its class besides.
    """
    world = world_class(task)
    names = arguments.keys() & {field.name for field in dataclasses.fields(world.Settings)}
    settings = make_settings(task, **{name: arguments.pop(name) for name in names})
    return load(world.environment)(settings, **arguments)


def register() -> None:
    """Make the worlds known to `gymnasium.make`. Calling it again changes nothing."""
    for name, task in GYMNASIUM_IDS.items():
        if name not in gymnasium.registry:
            entry_point = "envs.make:make_env"  # text: no simulator is imported before it is used
            gymnasium.register(id=name, entry_point=entry_point, kwargs={"task": task})
