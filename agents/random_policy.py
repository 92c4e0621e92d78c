"""A policy that draws its actions uniformly, to compare with (`random_policy=true`)."""

import torch
from tensordict import TensorDict
from torch import Tensor

from agents.base import Timestep
from common.data.batches import Tree


class RandomPolicy:
    """Acts without looking; episode i of a seed draws the same whatever runs beside it."""

    pursues_subgoals = explains = False

    def __init__(self, action_dim: int) -> None:
        self.action_dim = action_dim

    def begin(self, goal: Tensor | None) -> TensorDict:
        """Nothing to remember."""
        return TensorDict()

    def pursued(self, memory: Tree, goal: Tensor | None) -> Tensor | None:
        """The goal, if anything."""
        return goal

    def act(self, timestep: Timestep) -> tuple[Tensor, Tree]:
        """Actions (R, A), uniform in [-1, 1], whether exploring or not."""
        generators = timestep.generators
        draws = [torch.rand(self.action_dim, generator=g, device=g.device) for g in generators]
        return torch.stack(draws).to(timestep.obs.device) * 2 - 1, timestep.memory
