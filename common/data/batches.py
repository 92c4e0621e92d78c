"""Batches that agents learn from, and the shares of their goals."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class GoalShares:
    """Where goals come from; the three shares sum to one.

    Attributes:
        current: the next state. future: a later state of the episode. random: another episode's.
        geometric: future goals lie Geometric(1 - gamma) steps ahead instead of uniformly.
    """

    current: float
    future: float
    random: float
    geometric: bool


@dataclass(frozen=True)
class Indices:
    """Rows of one batch, (B,) each."""

    state: Tensor
    value_goal: Tensor
    policy_goal: Tensor
    policy_subgoal: Tensor


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Windows:
    """B sequences of H slots: states that follow each other, and in the last slot the goal.

    From the goal on, wherever it lies, all states are the goal and all actions zero.

    Attributes:
        obs: (B, H, *shape), normalised. action: (B, H, A) in each slot's state.
    """

    obs: Tensor
    action: Tensor
