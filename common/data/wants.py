"""Laws of batches, by which agents say what they want of the data; processes can exchange them."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from common.data.batches import Batch, Tree, Windows
from common.data.buffer import Buffer
from common.data.goals import HindsightLaw


class Wants(Protocol):
    """A law of batches; without `rewards`, what they are computed from need not be read."""

    rewards: ClassVar[bool]

    def sample(self, buffer: Buffer, size: int, generator: torch.Generator) -> Tree:
        """A batch of `size` samples."""


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
class Hindsight:
    """Transitions with one goal each, of the law; values and policies share it."""

    law: HindsightLaw
    rewards: ClassVar[bool] = True

    def sample(self, buffer: Buffer, size: int, generator: torch.Generator) -> Batch:
        return buffer.gather(self.law.transitions(buffer.episodes, size, generator))


@dataclass(frozen=True)
class Sequences:
    """Windows of `slots` states and actions, up to policy goals or, `to_end`, ends of episodes."""

    slots: int
    to_end: bool
    rewards: ClassVar[bool] = False

    def sample(self, buffer: Buffer, size: int, generator: torch.Generator) -> Windows:
        return buffer.windows(size, generator, self.slots, self.to_end)
