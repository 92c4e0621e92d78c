"""Small buffers."""

import torch

from common.data.batches import GoalShares
from common.data.buffer import Buffer

FUTURE = GoalShares(current=0.0, future=1.0, random=0.0, geometric=False)


def make(lengths: list[int], value: GoalShares = FUTURE, policy: GoalShares = FUTURE, **options):
    rows = sum(lengths)
    defaults = {"gamma": 0.9, "subgoal_k": 5, "done_signal": False}
    return Buffer(
        torch.arange(rows).float().view(-1, 1, 1),  # an observation is its row number
        torch.arange(rows).float().view(-1, 1),
        torch.tensor(lengths),
        {},
        options.pop("reward", None),
        value_goals=value,
        policy_goals=policy,
        **(defaults | options),
    )
