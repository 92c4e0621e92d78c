"""Laws of batches, by which agents say what they want of the data; processes can exchange them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from common.data.batches import Batch, Tree, Windows
from common.data.buffer import Buffer
from common.data.goals import HindsightLaw


class Wants(Protocol):
    """A law of batches; without `rewards`, what they are computed from need not be read."""

    rewards: bool

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
    """Transitions with one goal each, of the law; values and policies share it.

    Attributes:
        reward: (B,) of observations reached and asked for (B, *shape), not normalised; None: that
            of the data.
    """

    law: HindsightLaw
    reward: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def rewards(self) -> bool:
        """True if the data have to say them."""
        return self.reward is None

    def sample(self, buffer: Buffer, size: int, generator: torch.Generator) -> Batch:
        rows = self.law.transitions(buffer.episodes, size, generator)
        batch = buffer.gather(rows)
        if self.reward is not None:
            reached, asked = buffer.stored(rows.state + 1), buffer.stored(rows.value_goal)
            batch.reward = self.reward(reached, asked)
        return batch


@dataclass(frozen=True)
class Sequences:
    """Windows of `slots` states and actions, up to policy goals or, `to_end`, ends of episodes."""

    slots: int
    to_end: bool
    rewards: ClassVar[bool] = False

    def sample(self, buffer: Buffer, size: int, generator: torch.Generator) -> Windows:
        return buffer.windows(size, generator, self.slots, self.to_end)
