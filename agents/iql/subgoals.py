"""Value-based choice among sampled subgoals (paper: composing the two levels; spec: agents 6)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Proposal:
    """New subgoals for R environments, and what they were chosen by (M candidates each).

    Attributes:
        subgoal: (R, *shape).
        index: (R,) of the chosen candidate, -1 where the goal itself was taken.
        reach, remaining, direct, radius: as for `select_subgoals`.
    """

    subgoal: Tensor
    index: Tensor
    reach: Tensor
    remaining: Tensor
    direct: Tensor
    radius: float | None


def select_subgoals(
    candidates: Tensor,
    goal: Tensor,
    reach: Tensor,
    remaining: Tensor,
    direct: Tensor,
    radius: float | None,
) -> tuple[Tensor, Tensor]:
    """Choose one subgoal per environment. A pure function.

    Letters: R environments, M candidates each.

    Args:
        candidates: (R, M, ...) sampled subgoals c. goal: (R, ...) the goals g.
        reach: (R, M) V(s, c), how near each candidate is to the state.
        remaining: (R, M) V(c, g), how near each candidate brings the goal.
        direct: (R,) V(s, g).
        radius: the competence radius: candidates with V(s, c) below it are discarded, and the goal
            itself is taken where none is left or where V(s, g) beats every one left. `None` takes
            the highest V(c, g) without a filter.

    Returns:
        chosen (R, ...), and (R,) the chosen candidate's index, -1 where it is the goal itself.
    """
    if radius is not None:
        remaining = remaining.masked_fill(reach < radius, -torch.inf)
    best, index = remaining.max(dim=1)
    chosen = candidates[torch.arange(len(index), device=index.device), index]
    if radius is None:
        return chosen, index
    take_goal = torch.isinf(best) | (direct > best)
    shape = (-1,) + (1,) * (goal.dim() - 1)  # (R, 1, ...)
    chosen = torch.where(take_goal.view(shape), goal, chosen)
    return chosen, index.masked_fill(take_goal, -1)
