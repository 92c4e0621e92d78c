"""Scripted policies that collect scene data: OGBench's oracles, with noise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from common.foundation.errors import UserError
from common.settings.schema import CollectSettings
from envs.base import EpisodeRejected
from envs.rendering import without_backend
from envs.scene import rules
from envs.tabletop.policies import ScriptedCollector

with without_backend():
    from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle
    from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
    from ogbench.manipspace.oracles.markov.drawer_markov import DrawerMarkovOracle
    from ogbench.manipspace.oracles.markov.window_markov import WindowMarkovOracle
    from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle
    from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle
    from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle
    from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle

if TYPE_CHECKING:
    from envs.scene.env import VisualSceneEnv

MARKOV = {
    "cube": CubeMarkovOracle,  # at most 200 steps
    "button": ButtonMarkovOracle,  # at most 100 steps
    "drawer": DrawerMarkovOracle,  # at most 75 steps
    "window": WindowMarkovOracle,  # at most 75 steps
}
PLAN = {
    "cube": CubePlanOracle,
    "button": ButtonPlanOracle,
    "drawer": DrawerPlanOracle,
    "window": WindowPlanOracle,
}


class SceneCollector(ScriptedCollector):
    """Moves the cube, presses buttons, opens and closes drawer and window.

    `dataset_type` "noisy" has OGBench's Markov oracles with noise on their actions, "play" its plan
    oracles with noise in their plans.

    Args:
        env: the environment itself, without wrappers.
        settings: noise of the collection.
        check_health: reject an episode once a cube is where the camera cannot see it. The
            published collector reads other columns, so that its check never fires.

    Raises:
        UserError: if the environment is not in the collection mode.
    """

    def __init__(
        self, env: VisualSceneEnv, settings: CollectSettings, check_health: bool = True
    ) -> None:
        if env.mode != "data_collection":
            raise UserError(
                f"env_kwargs.scene.mode={env.mode} cannot be collected; allowed: data_collection"
            )
        if settings.dataset_type == "play":
            options = {
                "noise": settings.action_noise,
                "noise_smoothing": settings.action_noise_smoothing,
            }
            oracles = PLAN
        else:
            options, oracles = {"min_norm": settings.min_action_norm}, MARKOV
        policies = {task: oracle(env=env, **options) for task, oracle in oracles.items()}
        super().__init__(env, settings, policies)
        self._check_health = check_health

    def draw_p_stack(self) -> float:
        """Return an episode's probability of building on other cubes."""
        return 0.5

    def reset_policy(self, info: dict[str, Any]) -> None:
        """Start the policy on a new target."""
        with _drawing_from(self._rng):
            self._policy.reset(self._obs, info)

    def act(self, info: dict[str, Any]) -> np.ndarray:
        """Return the action (5,) float32; raises `EpisodeRejected` if a cube is out of sight."""
        cubes = [info[f"privileged/block_{i}_pos"] for i in range(self._env.num_cubes)]
        if self._check_health and not rules.healthy(np.array(cubes)):
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
