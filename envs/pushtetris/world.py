"""The Push-Tetris world: settings, rewards of stored masks, entities, metrics. No simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from common.foundation.errors import UserError
from common.settings.schema import CollectSettings, setting, show
from envs.base import ActionSpec, Collector, GoalWorld
from envs.pushtetris import rules

# Sums of neighbouring bits, in fields of 2, 4 and 8 bits of a 64-bit word.
_PAIRS, _NIBBLES, _BYTES = 0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F
_ADD_BYTES = 0x0101010101010101


def count_bits(masks: Tensor) -> Tensor:
    """Number of ones in the last axis: (..., M) uint8, M a multiple of 8 -> (...) int64.

    Eight bytes at a time and in place where it can be: several times faster on a CPU than looking
    up each byte in a table.
    """
    words = masks.contiguous().view(torch.int64)
    words = words - (words >> 1).bitwise_and_(_PAIRS)
    words = (words >> 2).bitwise_and_(_NIBBLES).add_(words & _NIBBLES)
    words = (words >> 4).add_(words).bitwise_and_(_BYTES)
    return words.mul_(_ADD_BYTES).bitwise_right_shift_(56).sum(dim=-1)


if TYPE_CHECKING:
    from torch import Tensor

CENTER = rules.PLANE / 2
LAST_STEP_METRICS = ("success", "success_frac", "final_coverage", "max_coverage")
LAST_STEP_METRICS += ("final_chamfer", "min_chamfer")


@dataclass(frozen=True)
class PushTetrisSettings:
    """Section `env_kwargs.pushtetris`; see `envs.pushtetris.env.PushTetrisEnv`."""

    mode: str = setting(choices=rules.MODES)
    reward_mode: str = setting(choices=rules.REWARD_MODES)
    object_list: tuple[str, ...] = setting(choices=tuple(rules.PIECES))
    num_objects: int = setting(low=1, high=len(rules.PIECES))
    visualize_target: bool = setting()
    render_size: int = setting(choices=(64, 128, 256, 512))


class PushTetris(GoalWorld):
    """One to seven Tetris pieces and a round agent that pushes them; entity 0 is the agent.

    Raises:
        UserError: for more pieces than kinds, for a piece named twice, and for two cameras.
    """

    name = "pushtetris-v0"
    section = "pushtetris"
    Settings = PushTetrisSettings
    dataset = "push-tetris-constrained_random-v0"
    packages = ("pymunk", "gymnasium", "numpy")
    metrics = (*LAST_STEP_METRICS, "episode_reward", "episode_length", "interaction_rate")
    reward_fields = ("image_bitmasks",)
    identifies_entities = True
    needs_opengl = False
    actions = ActionSpec(2)

    def __init__(
        self, settings: PushTetrisSettings, *, max_episode_steps: int, multiview: bool = False
    ) -> None:
        kinds = settings.object_list
        rules.check(settings.mode, settings.reward_mode, settings.num_objects, kinds)
        if multiview:
            raise UserError("multiview=true is not possible: pushtetris-v0 has one view")
        super().__init__(settings, max_episode_steps=max_episode_steps)
        self.num_objects = settings.num_objects
        self.num_entities = self.num_objects + 1
        self.max_identities = 1 + len(kinds)
        self.reward_within_episode = len(kinds) > 1  # other episodes' masks may be of other pieces
        self.row_dim = rules.POSE_DIM + self.max_identities  # of the state
        self.state_dim = self.num_entities * self.row_dim
        self.entity_dim = self.row_dim + 1
        self.entity_names = ("agent", *(f"piece_{i}" for i in range(self.num_objects)))

    def collect_overrides(self) -> list[str]:
        """Return the settings of `collect.py`, as overrides, that make data for this world."""
        section = f"env_kwargs.{self.section}"
        overrides = [f"{section}.mode={rules.COLLECTION}"]
        overrides += [f"{section}.num_objects={self.num_objects}"]
        if self.settings.object_list != tuple(rules.PIECES):
            overrides += [f"{section}.object_list={show(self.settings.object_list)}"]
        return [*super().collect_overrides(), *overrides]

    def simulator(self, pixels: bool) -> gym.Env:
        """Return the environment; observations are images if `pixels`, else states."""
        from envs.pushtetris.env import PushTetrisEnv

        return PushTetrisEnv(
            **vars(self.settings),
            ob_type="pixels" if pixels else "states",
            render_mode="rgb_array",
        )

    def compatible(self, header: Mapping[str, Any]) -> str | None:
        """Return None if data with this header fits, else what differs, in one line."""
        if header["environment"] != self.name:
            return f"the data is of environment {header['environment']}, not of {self.name}"
        for key in ("num_objects", "object_list", "render_size"):
            have, want = header["settings"][key], getattr(self.settings, key)
            if show(have) != show(want):
                return f"the data has {key}={show(have)}, this environment {key}={show(want)}"
        return None

    def dataset_columns(self, pixels: bool) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and type of one row of every stored column."""
        size = self.settings.render_size
        columns = {
            "actions": ((self.actions.size,), "float32"),
            "terminals": ((), "bool"),
            "state_observations": ((self.state_dim,), "float32"),
            "image_bitmasks": ((self.num_objects, size * size // 8), "uint8"),
        }
        return columns | ({"observations": ((size, size, 3), "uint8")} if pixels else {})

    def qpos_layout(self) -> dict[str, Any]:
        """Return nothing: this world stores no `qpos`."""
        return {}

    def reward(self, rows: Mapping[str, Tensor], goals: Mapping[str, Tensor]) -> Tensor:
        """Return the reward (B,) float32 for `image_bitmasks` (B, N, M) of rows and goals.

        The same formulas as the environment's own reward, see `rules.reward`. Pieces are matched
        by row, so a goal must be of the same episode.
        """

        seen, wanted = rows["image_bitmasks"], goals["image_bitmasks"]
        covered = rules.coverage(count_bits(seen & wanted), count_bits(wanted))
        return rules.reward(covered, self.settings.reward_mode)

    def state_entities(self, state: Tensor) -> Tensor:
        """Turn states (..., S) into rows (..., N + 1, 5 + K), all kinds of entities alike.

        A row is x and y from the centre in units of 100, as long as the longest action; cosine and
        sine of the angle; and the state's one-hot of agent and K kinds of pieces. Differs from the
        reference, which passes the rows of the state as they are, angles of several turns included.
        """
        rows = state.unflatten(-1, (self.num_entities, self.row_dim))
        entities = state.new_empty((*rows.shape[:-1], self.entity_dim))
        entities[..., :2] = (rows[..., :2] - CENTER) / rules.ACTION_UNITS
        entities[..., 2], entities[..., 3] = rows[..., 2].cos(), rows[..., 2].sin()
        entities[..., 4:] = rows[..., rules.POSE_DIM :]
        return entities

    def entities_state(self, entities: Tensor) -> Tensor:
        """Turn rows (..., N + 1, 5 + K) back into states (..., S), angles in (-pi, pi]."""
        rows = entities.new_empty((*entities.shape[:-1], self.row_dim))
        rows[..., :2] = entities[..., :2] * rules.ACTION_UNITS + CENTER
        rows[..., 2] = entities[..., 3].atan2(entities[..., 2])
        rows[..., rules.POSE_DIM :] = entities[..., 4:]
        return rows.flatten(-2)

    def entity_positions(self, state: Tensor) -> Tensor:
        """Return x and y (..., N, 2) of the pieces, scaled as in `state_entities`."""
        return self.state_entities(state)[..., 1:, :2]

    def collector(self, env: gym.Env, settings: CollectSettings) -> Collector:
        """Return the random agent that stays near a target piece; the mode must be a collection."""
        from envs.pushtetris.policies import ConstrainedRandom

        return ConstrainedRandom(env.unwrapped, settings)

    def summarise(
        self, history: Sequence[Mapping[str, Any]], rewards: Sequence[float]
    ) -> dict[str, float]:
        """Reduce one episode to `metrics`; success is that of the last step."""
        moved = [bool(info["was_agent_object_interaction"]) for info in history]
        return {name: float(history[-1][name]) for name in LAST_STEP_METRICS} | {
            "episode_reward": float(sum(rewards)),
            "episode_length": float(len(rewards)),
            "interaction_rate": sum(moved) / len(moved),
        }

    def statistics(
        self, columns: Mapping[str, np.ndarray], lengths: np.ndarray
    ) -> dict[str, float]:
        """Return figures of collected data (spec: environments 12).

        Args:
            columns: `state_observations` (R, S) and `actions` (R, 2) of whole episodes.
            lengths: their numbers of rows (E,), which sum to R.
        """
        rows = columns["state_observations"].reshape(-1, self.num_entities, self.row_dim)
        first = np.cumsum(lengths) - lengths
        inside = np.delete(np.arange(len(rows)), first + lengths - 1)  # rows with a next one
        agent, pieces = rows[:, 0, :2], rows[:, 1:, :2]
        displacement = pieces[first + lengths - 1] - pieces[first]
        return {
            "interaction_rate": float(rules.moved(pieces[inside], pieces[inside + 1]).mean()),
            "agent_move": float(np.linalg.norm(agent[inside + 1] - agent[inside], axis=1).mean()),
            "mean_abs_action": float(np.abs(columns["actions"]).mean()),
            "piece_displacement": float(np.linalg.norm(displacement, axis=-1).mean()),
        }
