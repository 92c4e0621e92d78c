"""The Push-Tetris world: settings, rewards of stored masks, entities, metrics. No simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np

from common.foundation.errors import UserError
from common.foundation.registry import load
from common.settings.schema import setting, show
from envs.base import ActionSpec, GoalWorld
from envs.pushtetris import rules

if TYPE_CHECKING:
    from torch import Tensor

CENTER = rules.PLANE / 2
# Sums of neighbouring bits, in fields of 2, 4 and 8 bits of a 64-bit word.
PAIRS, NIBBLES, BYTES = 0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F
ADD_BYTES = 0x0101010101010101


@dataclass(frozen=True)
class PushTetrisSettings:
    """Section `env_kwargs.pushtetris`."""

    mode: str = setting(choices=rules.MODES)
    reward_mode: str = setting(choices=rules.REWARD_MODES)
    object_list: tuple[str, ...] = setting(choices=tuple(rules.PIECES))
    num_objects: int = setting(low=1, high=len(rules.PIECES))
    visualize_target: bool = setting()
    render_size: int = setting(choices=(64, 128, 256, 512))

    def __post_init__(self) -> None:
        """Raise `UserError` for more pieces than kinds, and for a kind named twice."""
        kinds = self.object_list
        if len(set(kinds)) < len(kinds):
            raise UserError(f"object_list={','.join(kinds)} names a piece twice; give each once")
        if self.num_objects > len(kinds):
            raise UserError(
                f"num_objects={self.num_objects} is not possible with an object_list of "
                f"{len(kinds)} pieces; allowed: 1 to their number, each is used once"
            )


class PushTetris(GoalWorld):
    """One to seven Tetris pieces and a round agent, entity 0. Refuses two cameras."""

    name = "pushtetris-v0"
    section = "pushtetris"
    Settings = PushTetrisSettings
    dataset = "push-tetris-constrained_random-v0"
    packages = ("pymunk", "gymnasium", "numpy")
    environment = "envs.pushtetris.env:PushTetrisEnv"
    policies = "envs.pushtetris.policies:ConstrainedRandom"
    metrics = (
        *("success", "success_frac", "final_coverage", "max_coverage"),
        *("final_chamfer", "min_chamfer"),
        *("episode_reward", "episode_length", "interaction_rate"),
    )
    of_data = ("num_objects", "object_list", "render_size")
    reward_fields = ("image_bitmasks",)
    identifies_entities = True
    needs_opengl = False
    actions = ActionSpec(2)

    def __init__(
        self, settings: PushTetrisSettings, *, max_episode_steps: int, multiview: bool = False
    ) -> None:
        kinds = settings.object_list
        if multiview:
            raise UserError("multiview=true is not possible: pushtetris-v0 has one view")
        super().__init__(settings, max_episode_steps=max_episode_steps)
        self.num_objects = settings.num_objects
        self.max_identities = 1 + len(kinds)
        self.reward_within_episode = len(kinds) > 1  # other episodes' masks may be of other pieces
        self.entity_names = ("agent", *(f"piece_{i}" for i in range(self.num_objects)))
        self.row_dim = rules.POSE_DIM + self.max_identities  # of the state
        self.state_dim = self.num_entities * self.row_dim
        self.entity_dim = self.row_dim + 1

    def collect_overrides(self) -> list[str]:
        section = f"env_kwargs.{self.section}"
        overrides = [f"{section}.mode={self.collect_mode}"]
        overrides += [f"{section}.num_objects={self.num_objects}"]
        if self.settings.object_list != tuple(rules.PIECES):
            overrides += [f"{section}.object_list={show(self.settings.object_list)}"]
        return [*super().collect_overrides(), *overrides]

    def simulator(self, pixels: bool) -> gym.Env:
        ob_type = "pixels" if pixels else "states"
        return load(self.environment)(self.settings, ob_type=ob_type, render_mode="rgb_array")

    def dataset_columns(self, pixels: bool) -> dict[str, tuple[tuple[int, ...], str]]:
        size = self.settings.render_size
        columns = {
            "actions": ((self.actions.size,), "float32"),
            "terminals": ((), "bool"),
            "state_observations": ((self.state_dim,), "float32"),
            "image_bitmasks": ((self.num_objects, size * size // 8), "uint8"),
        }
        return columns | ({"observations": ((size, size, 3), "uint8")} if pixels else {})

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

    def statistics(
        self, columns: Mapping[str, np.ndarray], lengths: np.ndarray
    ) -> dict[str, float]:
        """Return figures on motion, from `state_observations` and `actions`."""
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


def count_bits(masks: Tensor) -> Tensor:
    """Number of ones in the last axis: (..., M) uint8, M a multiple of 8 -> (...) int64.

    Eight bytes at a time and in place where it can be: several times faster on a CPU than looking
    up each byte in a table.
    """
    import torch  # workers import this file and do without

    words = masks.contiguous().view(torch.int64)
    words = words - (words >> 1).bitwise_and_(PAIRS)
    words = (words >> 2).bitwise_and_(NIBBLES).add_(words & NIBBLES)
    words = (words >> 4).add_(words).bitwise_and_(BYTES)
    return words.mul_(ADD_BYTES).bitwise_right_shift_(56).sum(dim=-1)
