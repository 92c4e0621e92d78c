"""Value-based choice among sampled subgoals (the paper's composition of the two levels)."""

from dataclasses import dataclass

import torch
from torch import Tensor

HEADING = "   V(s,g)   in reach   best V(c,g)   its V(s,c)   pursued"


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

    def table(self) -> list[str]:
        """`HEADING`, and a line on the choice of each environment.

        The candidates c in reach are those with V(s,c) of at least the radius, or all without one;
        the best of them has the highest V(c,g).
        """
        return [HEADING, *map(self._line, range(len(self.index)))]

    def _line(self, row: int) -> str:
        reach, remaining = self.reach[row], self.remaining[row]
        near = reach >= (-torch.inf if self.radius is None else self.radius)
        count = f"{int(near.sum())}/{len(near)}"
        best = remaining.masked_fill(~near, -torch.inf).argmax()
        values = [f"{x:.2f}" if near.any() else "-" for x in (remaining[best], reach[best])]
        index = int(self.index[row])
        pursued = "goal" if index < 0 else f"candidate {index}"
        return f"{self.direct[row]:9.2f}{count:>11}{values[0]:>14}{values[1]:>13}   {pursued}"


def select_subgoals(
    candidates: Tensor,
    goal: Tensor,
    reach: Tensor,
    remaining: Tensor,
    direct: Tensor,
    radius: float | None,
) -> tuple[Tensor, Tensor]:
    """Choose one subgoal for each of R environments among M candidates each.

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
