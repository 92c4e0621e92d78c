"""Small buffers."""

import torch

from common.data.buffer import Buffer
from common.data.goals import GoalLaw, GoalShares

FUTURE = GoalShares(current=0.0, future=1.0, random=0.0, geometric=False)


def make(lengths: list[int], value: GoalShares = FUTURE, policy: GoalShares = FUTURE, **options):
    rows = sum(lengths)
    defaults = {"goals": GoalLaw(value, policy, gamma=0.9), "done_signal": False}
    return Buffer(
        torch.arange(rows).float().view(-1, 1, 1),  # an observation is its row number
        torch.arange(rows).float().view(-1, 1),
        torch.tensor(lengths),
        {},
        options.pop("reward", None),
        **(defaults | options),
    )
