"""Names of agents, observations, worlds and encoders: one line each, imported when asked for."""

import importlib
from collections.abc import Mapping
from typing import Any

from common.foundation.errors import UserError, did_you_mean

AGENTS = {
    "iql": "agents.iql.iql:IQL",
    "hiql": "agents.iql.hiql:HIQL",
    "sgiql": "agents.iql.sgiql:SGIQL",
    "ecdiffuser": "agents.ecdiffuser.ecdiffuser:ECDiffuser",
    "td3": "agents.ecrl.td3:TD3",
}
OBSERVATIONS = {
    "state": "agents.observations.states:FlatState",
    "ec_state": "agents.observations.states:EntityState",
    "ec_state_gen": "agents.observations.states:GeneralEntityState",
    "rgb": "agents.observations.images:RGB",
    "dlp": "agents.observations.latents:Particles",
    "vqvae": "agents.observations.latents:Codes",
}
IMAGE_KINDS = frozenset({"rgb", "dlp", "vqvae"})  # observations whose datasets hold images
WORLDS = {
    "manipobj-v0": "envs.manipobj.world:ManipObj",
    "pushing-v0": "envs.pushing.world:Pushing",
    "pushtetris-v0": "envs.pushtetris.world:PushTetris",
    "visual-scene-v0": "envs.scene.world:Scene",
}
OGBENCH_WORLD = "envs.ogbench.world:OGBenchWorld"  # of all names of OGBench's datasets
ENCODERS = {  # that can be trained
    "dlp": "visual_encoders.dlp.training:DLPTraining",
    "vqvae": "visual_encoders.vqvae.training:VQVAETraining",
}
FROZEN = {  # trained ones, as observations of the same name use them
    "dlp": "visual_encoders.dlp.published:FrozenDLP",
    "vqvae": "visual_encoders.vqvae.published:FrozenVQVAE",
}


def load(target: str) -> Any:
    """Import what `target` (`"package.module:Name"`) names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def lookup(registry: Mapping[str, str], name: str, what: str) -> type:
    """Return the class registered as `name`; raise `UserError` naming the nearest one otherwise."""
    if name in registry:
        return load(registry[name])
    allowed = f"allowed: {', '.join(registry)}"
    raise UserError(f"{what}={name} is not known; {allowed}{did_you_mean(name, registry)}")


def world_class(name: str, what: str = "task") -> type:
    """Import the `World` of that name, ours or OGBench's; raise `UserError` if there is none."""
    theirs = load("envs.ogbench.tasks:TASKS")
    return load(OGBENCH_WORLD) if name in theirs else lookup(WORLDS, name, what)
