"""The worlds by their name in `config.yaml`. To add one: its files, and a line here."""

import gymnasium

from common.registry import load, lookup
from envs.ogbench_tasks import TASKS

WORLDS = {
    "manipobj-v0": "envs.manipobj:ManipObj",
    "pushtetris-v0": "envs.pushtetris:PushTetris",
    "visual-scene-v0": "envs.scene:Scene",
}
OGBENCH_WORLD = "envs.ogbench_world:OGBenchWorld"  # of all names of OGBench's datasets

# The gymnasium classes behind them: strings, so that no simulator is imported before it is used.
# OGBench registers a `visual-scene-v0` of its own; with a namespace both can be made.
GYMNASIUM_IDS = {
    "manipobj-v0": "envs.manipobj_env:ManipObjEnv",
    "pushtetris-v0": "envs.pushtetris_env:PushTetrisEnv",
    "hecrl/visual-scene-v0": "envs.scene_env:VisualSceneEnv",
}


def world_class(name: str, what: str = "task") -> type:
    """Import the `World` of that name, ours or OGBench's; raise `UserError` if there is none."""
    return load(OGBENCH_WORLD) if name in TASKS else lookup(WORLDS, name, what)


def register() -> None:
    """Make the worlds known to `gymnasium.make`. Calling it again changes nothing."""
    for name, entry_point in GYMNASIUM_IDS.items():
        if name not in gymnasium.registry:
            gymnasium.register(id=name, entry_point=entry_point)


register()
