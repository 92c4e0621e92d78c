"""Episodes that an agent played, as columns of a dataset and as rows of a replay."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.observations.states import Observation
from common.evaluation.player import Recording, episode_identities
from datasets.store import Columns
from envs.base import World

LATENTS = "latents"  # column of what a frozen encoder made, whose images are not kept

Rows = tuple[Tensor, Tensor, dict[str, Tensor], int, bool]  # arguments of `Replay.add`
Arrays = Mapping[str, np.ndarray]


def observed_column(observation: Observation) -> str:
    """The column that observations are made from."""
    return LATENTS if observation.encoded else observation.column


def stored_columns(observation: Observation, world: World) -> Columns:
    """Shape and type of a row of each column."""
    columns: dict[str, Any] = {
        "actions": ((world.actions.size,), np.float32),
        "terminals": ((), np.bool_),
        world.state_column: ((world.state_dim,), np.float32),
    }
    if observation.encoded:
        columns[LATENTS] = (observation.shape, np.float32)
    elif observation.pixels:
        columns[observation.column] = (observation.stored, np.uint8)
    return columns


def episode_columns(
    recording: Recording, observation: Observation, world: World
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Columns of an episode of T - 1 steps, T rows each, and what is not of its steps.

    The last row is the state in which it ended, with an action of zeros: as in all datasets, the
    last action has no successor.
    """
    actions = np.stack([*recording.actions, np.zeros_like(recording.actions[0])])
    terminals = np.zeros(len(actions), np.bool_)
    terminals[-1] = True
    columns = {
        "actions": actions,
        "terminals": terminals,
        world.state_column: np.stack(recording.states),
        observed_column(observation): np.stack([np.asarray(row) for row in recording.rows]),
    }
    moved = recording.metrics.get("interaction_rate", 1.0) > 0
    facts = {"index": np.array(recording.index), "moved": np.array(moved)}
    if recording.goal is not None:
        facts |= {"goal": np.asarray(recording.goal), "goal_state": recording.goal_state}
    return columns, facts


def replay_rows(
    columns: Arrays, facts: Arrays, observation: Observation, world: World, seed: int
) -> Rows:
    """Rows of an episode and, after them, of its own goal; `seed` is that of its player.

    A function of what is on disk, so that a run which goes on has the same bits.
    """
    identities = episode_identities(observation, seed, int(facts["index"]))

    def observed(rows: np.ndarray) -> Tensor:
        rows = torch.from_numpy(rows)
        if observation.encoded:
            return rows
        return observation.encode(rows, identities.expand(len(rows), -1))

    obs = [observed(columns[observed_column(observation)])]
    action = [torch.from_numpy(columns["actions"])]
    state = [torch.from_numpy(columns[world.state_column])]
    if "goal" in facts:
        obs.append(observed(np.asarray(facts["goal"])[None]))
        action.append(torch.zeros_like(action[0][:1]))
        state.append(torch.from_numpy(np.asarray(facts["goal_state"]))[None])
    states = {world.state_column: torch.cat(state)}
    return torch.cat(obs), torch.cat(action), states, len(action[0]), bool(facts["moved"])
