"""Batches written plainly, for comparison: whole episodes are gathered, rows chosen in them."""

import torch
from torch import Tensor

from common.data.batches import Batch
from common.data.buffer import Buffer


def sample(buffer: Buffer, size: int, generator: torch.Generator) -> Batch:
    """The batch of `Buffer.sample`, by way of every row of the episodes drawn; no random goals."""
    rows = buffer.goals.transitions(buffer.episodes, size, generator)
    starts, length = buffer.episodes[:2]
    episode = torch.bucketize(rows.state, starts, right=True) - 1
    first, longest = starts[episode], int(length.max())
    inside = torch.arange(longest).minimum(length[episode, None] - 1)
    whole = first[:, None] + inside  # (B, T)
    obs, action = buffer.observe(whole.flatten()).unflatten(0, whole.shape), buffer.action[whole]
    columns = {name: column[whole] for name, column in buffer.reward_rows.items()}

    def pick(episodes: Tensor, row: Tensor) -> Tensor:
        return episodes[torch.arange(size), row - first]

    following = rows.state + 1
    if buffer.reward is None:
        reward = (rows.value_goal == following).float() - 1
    else:
        reached, asked = (
            {name: pick(column, row) for name, column in columns.items()}
            for row in (following, rows.value_goal)
        )
        reward = buffer.reward(reached, asked)
    done = (reward == 0).float() if buffer.done_signal else torch.zeros_like(reward)
    goals = (pick(obs, row) for row in (rows.value_goal, rows.policy_goal, rows.policy_subgoal))
    state, after = pick(obs, rows.state), pick(obs, following)
    action = pick(action, rows.state)
    return Batch(state, after, action, reward, done, *goals, batch_size=[size])
