"""A policy that draws its actions uniformly, to compare with (`random_policy=true`)."""

import torch
from torch import Tensor


class RandomPolicy:
    """Acts without looking; episode i of a seed draws the same whatever runs beside it."""

    pursues_subgoals = False

    def __init__(self, action_dim: int) -> None:
        self.action_dim = action_dim

    def begin(self, goal: Tensor) -> Tensor:
        """Nothing to remember but the goal."""
        return goal

    def pursued(self, memory: Tensor, goal: Tensor) -> Tensor:
        """The goal, if anything."""
        return goal

    def act(
        self,
        obs: Tensor,
        goal: Tensor,
        step: Tensor,
        memory: Tensor,
        generators: list[torch.Generator],
    ) -> tuple[Tensor, Tensor]:
        """As `agents.base.Agent.act`: actions (R, A), uniform in [-1, 1], and the goals."""
        draws = [torch.rand(self.action_dim, generator=g, device=g.device) for g in generators]
        return torch.stack(draws).to(obs.device) * 2 - 1, goal
