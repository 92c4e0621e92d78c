"""Worlds by the name of their task, and their Gymnasium environments."""

import gymnasium

from common.foundation.registry import world_class
from common.settings.config import Config
from envs.base import World


def make_world(config: Config) -> World:
    """The world that the settings describe."""
    return world_class(config.task).of_task(
        config.task,
        config.world,
        max_episode_steps=config.max_episode_steps,
        multiview=config.multiview,
    )


# The gymnasium classes behind them: strings, so that no simulator is imported before it is used.
# OGBench registers a `visual-scene-v0` of its own; with a namespace both can be made.
GYMNASIUM_IDS = {
    "manipobj-v0": "envs.manipobj.env:ManipObjEnv",
    "pushtetris-v0": "envs.pushtetris.env:PushTetrisEnv",
    "hecrl/visual-scene-v0": "envs.scene.env:VisualSceneEnv",
}


def register() -> None:
    """Make the worlds known to `gymnasium.make`. Calling it again changes nothing."""
    for name, entry_point in GYMNASIUM_IDS.items():
        if name not in gymnasium.registry:
            gymnasium.register(id=name, entry_point=entry_point)
