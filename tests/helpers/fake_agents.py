"""Agents for tests of evaluation, without networks."""

import math

import torch
from tensordict import TensorDict


class FakeAgent:
    """Interface of agents for evaluation but for `act`; it remembers what it pursues."""

    def begin(self, goal):
        return TensorDict({"pursued": goal})

    def pursued(self, memory, goal):
        return memory["pursued"]


class PointAgent(FakeAgent):
    """Steers to a subgoal half-way to the goal, chosen every five steps, with noise of its own."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        size = 2 * math.prod(shape)
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.randn(size, 2, generator=generator) / size
        self.largest = 0

    def act(self, timestep):
        obs, memory = timestep.obs, timestep.memory.clone()
        self.largest = max(self.largest, len(obs))
        halfway, new = (obs + timestep.goal) / 2, timestep.step % 5 == 0
        pursued = torch.where(new.view(-1, 1, 1), halfway, memory["pursued"])
        memory["pursued"] = pursued
        noise = torch.stack([torch.rand(2, generator=g) for g in timestep.generators])
        joined = torch.cat([obs.flatten(1), pursued.flatten(1)], dim=-1)
        mixed = torch.stack([row @ self.weight for row in joined])  # one product per row
        steer = (pursued[..., 0] - obs[..., 0]) + mixed
        return (steer + 0.1 * noise).clamp(-1, 1), memory
