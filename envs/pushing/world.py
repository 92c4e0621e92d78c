"""The pushing world, without its simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from common.foundation.registry import load
from envs.base import ActionSpec, Collector
from envs.drawn import DrawnWorld
from envs.pushing import modes, rules

if TYPE_CHECKING:
    from torch import Tensor

IDENTITIES = 7  # the pusher and six objects: what `obs=ec_state_gen` draws from


class Pushing(DrawnWorld):
    """A pusher, entity 0, and N objects. Raises `UserError` where `modes.make_mode` does.

    A state is one row per entity: x, y and, of T blocks, yaw. It is the only column that rewards
    read, and a goal's state has rows of the same kind, in `mode=sort_push` one per colour.
    """

    name = "pushing-v0"
    section = "pushing"
    Settings = modes.PushingSettings
    dataset = "pushing-v0"
    environment = "envs.pushing.env:PushingEnv"
    packages = ("mujoco", "gymnasium", "numpy")
    metrics = (
        *("success", "success_frac", "mean_distance", "max_distance", "fallen"),
        *("episode_reward", "mean_reward", "episode_length", "interaction_rate"),
    )
    reward_fields = ("state_observations",)
    reward_range = (-2.0, 0.0)
    actions = ActionSpec(3)

    def __init__(
        self, settings: modes.PushingSettings, *, max_episode_steps: int, multiview: bool = False
    ) -> None:
        super().__init__(settings, max_episode_steps=max_episode_steps, multiview=multiview)
        self.law = law = modes.make_mode(settings)
        self.num_objects, self.scene = law.num_objects, law.scene
        self.learning_steps = law.learning_steps
        self.entity_dim = law.scene.row_dim
        self.entity_names = ("agent", *(f"object_{i}" for i in range(law.num_objects)))
        self.state_dim = self.num_entities * self.entity_dim
        self.max_identities = max(IDENTITIES, 1 + law.goal_objects)
        if law.scene.blocks:
            self.metrics += tuple(f"yaw_error_{i}" for i in range(law.num_objects))
        if law.goal_objects < law.num_objects:
            self.metrics += ("sorted_frac",)

    @classmethod
    def defaults(cls, task: str, settings: modes.PushingSettings) -> dict[str, Any]:
        steps = modes.make_mode(settings).episode_steps
        return super().defaults(task, settings) | {"max_episode_steps": steps}

    @property
    def entity_identities(self) -> tuple[int, ...]:
        """A number for each object, but in `mode=sort_push` for each colour."""
        return (0, *(1 + i % self.law.goal_objects for i in range(self.num_objects)))

    @property
    def goal_dim(self) -> int:
        return (1 + self.law.goal_objects) * self.entity_dim

    def simulator(self, pixels: bool) -> gym.Env:
        return load(self.environment)(
            self.settings,
            ob_type="pixels" if pixels else "states",
            multiview=self.multiview,
            render_mode="rgb_array",
        )

    def observation_problem(self, kind: str, pixels: bool) -> str | None:
        if kind == "flat" and not pixels and self.goal_dim < self.state_dim:
            return f"goals of mode={self.law.name} have fewer objects than states; use obs=ec_state"
        return None

    # Data: any episode is, whatever its goal was.

    def check_collects(self) -> None:
        """Every mode collects."""

    def collector(self, env: gym.Env, settings: Any) -> Collector:
        policies = {"random": "RandomPolicy", "pusher": "ScriptedPusher"}
        name = policies[self.settings.collector]
        return load(f"envs.pushing.policies:{name}")(env.unwrapped, settings)

    def collect_overrides(self) -> list[str]:
        section = f"env_kwargs.{self.section}"
        overrides = [f"{section}.mode={self.settings.mode}"]
        overrides += [f"{section}.num_objects={self.num_objects}"]
        return [*super().collect_overrides(), *overrides]

    def compatible(self, header: Mapping[str, Any]) -> str | None:
        if problem := super().compatible(header):
            return problem
        given = {key: header["settings"][key] for key in ("mode", "num_objects")}
        other = replace(self.settings, num_colors=None, collector="random", **given)
        theirs = modes.make_mode(other)
        if theirs.scene != self.scene:
            return f"the data is of mode={theirs.name}, whose table or objects are others"
        if theirs.num_objects != self.num_objects:
            have, want = theirs.num_objects, self.num_objects
            return f"the data has num_objects={have}, this environment num_objects={want}"
        return None

    def qpos_layout(self) -> dict[str, Any]:
        objects = {f"object_{i}_xyz_yaw": [3 + 4 * i, 7 + 4 * i] for i in range(self.num_objects)}
        return {"pusher_xyz": [0, 3], **objects}

    def statistics(
        self, columns: Mapping[str, np.ndarray], lengths: np.ndarray
    ) -> dict[str, float]:
        """Return figures on actions and moving objects, from `actions` and `state_observations`."""
        rows = columns["state_observations"].reshape(len(columns["actions"]), -1, self.entity_dim)
        first = np.cumsum(lengths) - lengths
        inside = np.delete(np.arange(len(rows)), first + lengths - 1)  # rows with a next one
        step = np.linalg.norm(rows[inside + 1] - rows[inside], axis=-1)
        outside = (abs(rows[:, 1:, :2]) > np.array(self.scene.size) / 2).any(axis=(1, 2))
        return super().statistics(columns, lengths) | {
            "interaction rate": float((step[:, 1:] > rules.MOVED).any(axis=1).mean()),
            "mean pusher move (m)": float(step[:, 0].mean()),
            "an object beside the table": float(outside.mean()),
        }

    def replay(self, env: gym.Env, row: Mapping[str, np.ndarray]) -> np.ndarray:
        """Draw a stored `qpos`, in the colours of the environment's episode."""
        return env.unwrapped.replay(row["qpos"])

    # Rewards and entities.

    def reward(self, rows: Mapping[str, Tensor], goals: Mapping[str, Tensor]) -> Tensor:
        """Return the reward (B,) float32 of states (B, S), for goals (B, S) or `state_goal`s.

        The same formula as the environment's own reward, see `rules.reward`.
        """
        name = self.reward_fields[0]
        objects, wanted = (self.state_entities(each[name])[..., 1:, :] for each in (rows, goals))
        each = np.arange(self.num_objects) % wanted.shape[-2]
        error = rules.errors(objects, wanted[..., each, :])
        return rules.reward(error, self.scene.scale)

    def state_entities(self, state: Tensor) -> Tensor:
        """Turn states (..., S) into rows (..., N + 1, 2 or 3); a goal's may be fewer."""
        return state.unflatten(-1, (-1, self.entity_dim))

    def entities_state(self, entities: Tensor) -> Tensor:
        """Turn rows (..., N + 1, 2 or 3) back into states (..., S)."""
        return entities.flatten(-2)

    def entity_positions(self, state: Tensor) -> Tensor:
        """Return x and y (..., N, 2) of the objects, and yaw of T blocks, (..., N, 3)."""
        return self.state_entities(state)[..., 1:, :]
