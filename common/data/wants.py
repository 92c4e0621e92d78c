"""What an agent wants of the data: each says how a batch of it is drawn."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from common.data.batches import Batch, Tree, Windows
from common.data.buffer import Buffer


class Wants(Protocol):
    """A law of batches, which other processes can be sent.

    Attributes:
        rewards: whether batches have rewards, and what they are computed from has to be read.
    """

    rewards: ClassVar[bool]

    def sample(self, buffer: Buffer, size: int, generator: torch.Generator) -> Tree:
        """A batch of `size` samples, a tree of tensors (size, ...)."""


@dataclass(frozen=True)
class Transitions:
    """Transitions with goals.

    Attributes:
        subgoal_steps: from a state to its subgoal, at most up to the goal; None for agents that
            learn no subgoals.
    """

    subgoal_steps: int | None = None
    rewards: ClassVar[bool] = True

    def sample(self, buffer: Buffer, size: int, generator: torch.Generator) -> Batch:
        return buffer.sample(size, generator, self.subgoal_steps or 1)


@dataclass(frozen=True)
class Sequences:
    """Windows of `slots` states and actions without rewards, up to their goals.

    Attributes:
        to_end: whether goals are the ends of episodes, or else the policy's.
    """

    slots: int
    to_end: bool
    rewards: ClassVar[bool] = False

    def sample(self, buffer: Buffer, size: int, generator: torch.Generator) -> Windows:
        return buffer.windows(size, generator, slots=self.slots, to_end=self.to_end)
