"""Scripted policies that collect scene data: OGBench's oracles, with noise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from common.foundation.registry import load
from common.settings.schema import CollectSettings
from envs.base import EpisodeRejected
from envs.rendering import without_backend
from envs.scene import rules
from envs.tabletop.policies import ScriptedCollector

if TYPE_CHECKING:
    from envs.scene.env import VisualSceneEnv

TASKS = ("cube", "button", "drawer", "window")


def oracle(task: str, kind: str) -> type:
    """Return OGBench's policy of a task; `kind` is "markov" or "plan"."""
    with without_backend():
        module = f"ogbench.manipspace.oracles.{kind}.{task}_{kind}"
        return load(f"{module}:{task.title()}{kind.title()}Oracle")


class SceneCollector(ScriptedCollector):
    """Moves the cube, presses buttons, opens and closes drawer and window.

    `dataset_type` "noisy" has OGBench's Markov oracles with noise on their actions, "play" its plan
    oracles with noise in their plans.
    """

    def __init__(self, env: VisualSceneEnv, settings: CollectSettings) -> None:
        kind = "plan" if settings.dataset_type == "play" else "markov"
        noise = {"noise": settings.action_noise, "noise_smoothing": settings.action_noise_smoothing}
        options = noise if kind == "plan" else {"min_norm": settings.min_action_norm}
        policies = {task: oracle(task, kind)(env=env, **options) for task in TASKS}
        super().__init__(env, settings, policies)

    def reset_policy(self, info: dict[str, Any]) -> None:
        """Start the policy on a new target."""
        with _drawing_from(self._rng):
            self._policy.reset(self._obs, info)

    def act(self, info: dict[str, Any]) -> np.ndarray:
        """Return the action (5,) float32; raise `EpisodeRejected` if a cube cannot be seen.

        The published collector reads other columns, so that its check never fires.
        """
        cubes = [info[f"privileged/block_{i}_pos"] for i in range(self._env.num_cubes)]
        if not self._env.settings.published_health_check and not rules.healthy(np.array(cubes)):
            raise EpisodeRejected("a cube is out of sight")
        return super().act(info)


@contextlib.contextmanager
def _drawing_from(rng: np.random.Generator) -> Iterator[None]:
    """Make numpy's global generator, which OGBench's oracles draw from, follow `rng`."""
    state = np.random.get_state()
    np.random.seed(rng.integers(2**32))
    try:
        yield
    finally:
        np.random.set_state(state)
