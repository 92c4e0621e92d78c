"""OGBench's own environments behind our interface: their physics, tasks and pictures unchanged.

What is added: episodes that a seed reproduces, the figures and vectors that evaluation reads, and
frames with subgoals.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from common.foundation.registry import load
from envs.environment import Environment
from envs.rendering import check_process, open_renderer, without_backend
from envs.tabletop.frames import draw_poses

with without_backend():
    import mujoco
    from ogbench.manipspace.envs.manipspace_env import ManipSpaceEnv

AGENT_DIM, CUBE_DIM = 19, 9  # of the state vector
EFFECTOR = slice(12, 15)  # columns of its xyz


class Episodes(Environment, ManipSpaceEnv):
    """Derive from it and, after it, from an environment of OGBench, whose arguments it takes."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}
    render_mode = "rgb_array"

    def __init__(self, cubes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cubes = cubes

    @functools.cached_property
    def action_space(self) -> gym.spaces.Box:
        """One object for ever: OGBench makes a new one, unseeded, each time it samples from it."""
        return gym.spaces.Box(-1.0, 1.0, (5,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; all of it, the goal's arm included, comes from `seed`.

        Differs from OGBench, which takes the few random actions before a goal is recorded, and a
        task that is not given, from generators that `seed` does not reach.

        The options are OGBench's: `{"task_id": 1 to 5}`, `{"render_goal": True}`, `task_info`.
        """
        if seed is not None:
            self.action_space.seed(seed)
        options = dict(options or {})
        if not {"task_id", "task_info"} & options.keys():
            options["task_id"] = int(self.action_space.np_random.integers(1, self.num_tasks + 1))
        obs, info = super().reset(seed=seed, options=options)
        if self._ob_type == "states":
            info |= {"state_obs": obs, "state_goal": info["goal"]}
        return obs, info

    def _advance(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """OGBench's step; `success_frac` is the share of objects that are where they should be."""
        theirs = super(Environment, self)
        vars(self)["compute_reward"] = theirs.compute_reward  # in this step alone
        try:
            obs, reward, terminated, truncated, info = theirs.step(action)
        finally:
            del self.compute_reward
        info["success_frac"] = float(np.hstack(self._compute_successes()).mean())
        if self._ob_type == "states":
            info["state_obs"] = obs
        return obs, reward, terminated, truncated, info

    def _initialize_renderer(self) -> None:
        self._renderer = open_renderer(self._model, self._render_height, self._render_width)

    def _draw(self, *args: Any, **kwargs: Any) -> np.ndarray:
        check_process()
        return super(Environment, self).render(*args, **kwargs)

    def frame(self, **kwargs: Any) -> np.ndarray:
        """Draw OGBench's camera (height, width, 3) uint8, for people to look at."""
        return self._draw(**kwargs)

    def subgoal_frame(self, state: np.ndarray) -> np.ndarray:
        """Draw `frame` with a subgoal (OGBench's vector): cubes as ghosts, effector as a sphere."""
        state = np.asarray(state, dtype=np.float64)
        return self.frame(scene_callback=lambda scene: self._draw_subgoal(scene, state))

    def _draw_subgoal(self, scene: mujoco.MjvScene, state: np.ndarray) -> None:
        end = AGENT_DIM + CUBE_DIM * self.cubes
        rows = state[AGENT_DIM:end].reshape(self.cubes, CUBE_DIM)
        lengths = np.linalg.norm(rows[:, 3:7], axis=1, keepdims=True)
        colors = self._cube_colors[: self.cubes] if self.cubes else ()
        quaternions = rows[:, 3:7] / np.maximum(lengths, 1e-6)
        draw_poses(scene, rows[:, :3], quaternions, colors, state[EFFECTOR])

    def close(self) -> None:
        """Free the OpenGL context, if there is one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def make_env(environment: str, cubes: int, **settings: Any) -> Episodes:
    """Return OGBench's `environment`, such as cube-double-v0, as it is registered but `settings`.

    Its time limit is left out.
    """
    spec = gym.spec(environment)  # it was registered when OGBench was imported
    registered = load(spec.entry_point)
    kind = type(registered.__name__, (Episodes, registered), {})
    return kind(cubes, **(spec.kwargs | settings))
