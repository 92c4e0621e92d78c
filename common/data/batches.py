"""Batches that agents learn from: trees of tensors, which index and move as a whole."""

from typing import Any

from tensordict import tensorclass
from torch import Tensor

Tree = Any  # TensorDict or tensorclass: nested tensors with leading axes `batch_size` in common


@tensorclass
class Batch:
    """B transitions with their goals; observations are normalised, (B, *shape).

    Attributes:
        action: (B, A). reward: (B,) of reaching `value_goal` at `next_obs`, in [-1, 0].
        done: (B,) 1 where bootstrapping stops.
    """

    obs: Tensor
    next_obs: Tensor
    action: Tensor
    reward: Tensor
    done: Tensor
    value_goal: Tensor
    policy_goal: Tensor
    policy_subgoal: Tensor


@tensorclass
class Windows:
    """B sequences of H slots: states that follow each other, and in the last slot the goal.

    From the goal on, wherever it lies, all states are the goal and all actions zero.

    Attributes:
        obs: (B, H, *shape), normalised. action: (B, H, A) in each slot's state.
    """

    obs: Tensor
    action: Tensor
