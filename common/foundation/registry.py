"""Registries: plain dictionaries from a name to `"module:Class"`, imported only when asked for."""

import difflib
import importlib
from collections.abc import Mapping

from common.foundation.errors import UserError

AGENTS = {
    "iql": "agents.iql.iql:IQL",
    "hiql": "agents.iql.hiql:HIQL",
    "sgiql": "agents.iql.sgiql:SGIQL",
    "ecdiffuser": "agents.ecdiffuser.ecdiffuser:ECDiffuser",
}


OBSERVATIONS = {
    "ec_state": "agents.observations.states:EntityState",
    "ec_state_gen": "agents.observations.states:GeneralEntityState",
    "state": "agents.observations.states:FlatState",
    "rgb": "agents.observations.images:RGB",
    "dlp": "agents.observations.latents:Particles",
    "vqvae": "agents.observations.latents:Codes",
}


def load(target: str) -> type:
    """Import the class that `target` (`"package.module:Class"`) names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def lookup(registry: Mapping[str, str], name: str, what: str) -> type:
    """Return the class registered as `name`; raise `UserError` naming the nearest one otherwise."""
    if name in registry:
        return load(registry[name])
    close = difflib.get_close_matches(name, registry, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UserError(f"{what}={name} is not known; allowed: {', '.join(registry)}{hint}")


WORLDS = {
    "manipobj-v0": "envs.manipobj.world:ManipObj",
    "pushtetris-v0": "envs.pushtetris.world:PushTetris",
    "visual-scene-v0": "envs.scene.world:Scene",
}
OGBENCH_WORLD = "envs.ogbench.world:OGBenchWorld"  # of all names of OGBench's datasets


def world_class(name: str, what: str = "task") -> type:
    """Import the `World` of that name, ours or OGBench's; raise `UserError` if there is none."""
    theirs = load("envs.ogbench.tasks:TASKS")
    return load(OGBENCH_WORLD) if name in theirs else lookup(WORLDS, name, what)


ENCODERS = {
    "dlp": "visual_encoders.dlp.training:DLPTraining",
    "vqvae": "visual_encoders.vqvae.training:VQVAETraining",
}

FROZEN = {
    "dlp": "visual_encoders.dlp.published:FrozenDLP",
    "vqvae": "visual_encoders.vqvae.published:FrozenVQVAE",
}
