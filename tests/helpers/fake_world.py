"""Agents for tests of evaluation, without networks.

Nothing here imports torch at module level: worker processes import this file.
"""

import math


class FakeAgent:
    """What evaluation asks of an agent besides `act`; its memory is what it pursues."""

    def begin(self, goal):
        return goal

    def pursued(self, memory, goal):
        return memory


class PointAgent(FakeAgent):
    """Steers to a subgoal half-way to the goal, chosen every five steps, with noise of its own."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        import torch

        size = 2 * math.prod(shape)
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.randn(size, 2, generator=generator) / size
        self.largest = 0

    def act(self, obs, goal, step, memory, generators):
        import torch

        self.largest = max(self.largest, len(obs))
        halfway = (obs + goal) / 2
        memory = torch.where((step % 5 == 0).view(-1, 1, 1), halfway, memory)
        noise = torch.stack([torch.rand(2, generator=g) for g in generators])
        joined = torch.cat([obs.flatten(1), memory.flatten(1)], dim=-1)
        mixed = torch.stack([row @ self.weight for row in joined])  # one product per row
        steer = (memory[..., 0] - obs[..., 0]) + mixed
        return (steer + 0.1 * noise).clamp(-1, 1), memory
