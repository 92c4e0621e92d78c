"""Storage of an offline dataset as flat tensors, from which batches are gathered."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from common.data.batches import Batch, Windows
from common.data.goals import Episodes, GoalLaw, Indices, draw_pairs
from common.foundation.errors import UserError

CHUNK = 1 << 14  # rows: what limits are taken of at a time, to need no second observations
SHORTEST = 3  # rows of an episode: what is cut of it must hold a transition
RewardFunction = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]


class Buffer:
    """Episodes end to end in R rows, and batches of them; `grows` if there will be more.

    Args:
        obs: (R, *shape) observations of all rows, normalised unless `normalise` does that.
        action: (R, A).
        length: (E,) rows per episode, at least `SHORTEST` each.
        reward_rows: the dataset's columns, (R, ...) each, that `reward` reads.
        reward: (rows of next states, rows of goals) -> (B,); `None` for the unsupervised reward, 0
            iff the goal is the very next state, else -1.
        goals: the law by which states and goals are drawn.
        done_signal: whether a reached goal ends bootstrapping.
        normalise: is applied to what is drawn of `obs`, for what lies on disk as it is.
        skip_short: nothing is drawn of episodes that are shorter than that.
    """

    grows: ClassVar[bool] = False

    def __init__(
        self,
        obs: Tensor,
        action: Tensor,
        length: Tensor,
        reward_rows: Mapping[str, Tensor],
        reward: RewardFunction | None,
        *,
        goals: GoalLaw,
        done_signal: bool,
        normalise: Callable[[Tensor], Tensor] | None = None,
        skip_short: bool = False,
    ) -> None:
        kept = length >= SHORTEST
        if not kept.all() and not (skip_short and kept.any()):
            shortest = int(length.min())
            raise UserError(f"an episode has {shortest} steps; training needs {SHORTEST} or more")
        alone = 0 < kept.sum() < 2
        if (goals.value.random or goals.policy.random) and alone:
            raise UserError("goals of other episodes were asked for, but there is one episode only")
        self.obs, self.action = obs, action
        self.episodes = Episodes((torch.cumsum(length, 0) - length)[kept], length[kept])
        self.reward_rows, self.reward = dict(reward_rows), reward
        self.goals, self.done_signal, self.normalise = goals, done_signal, normalise

    def __len__(self) -> int:
        return len(self.action)

    @property
    def bytes(self) -> int:
        """Memory that its tensors take."""
        tensors = (self.obs, self.action, *self.episodes, *self.reward_rows.values())
        return sum(t.nbytes for t in tensors if t is not None)

    def sample(self, size: int, generator: torch.Generator, subgoal_steps: int = 1) -> Batch:
        """`size` transitions with goals, and subgoals so many steps ahead."""
        return self.gather(self.goals.transitions(self.episodes, size, generator, subgoal_steps))

    def windows(self, size: int, generator: torch.Generator, slots: int, to_end: bool) -> Windows:
        """`size` windows of H slots each, with policy goals or, `to_end`, their episodes' ends."""
        rows = self.goals.windows(self.episodes, size, generator, slots, to_end)
        moving = rows < rows[:, -1:]  # before the goal
        action = torch.where(moving.unsqueeze(-1), self._at(self.action, rows), 0.0)
        return Windows(self.observe(rows), action, batch_size=[size])

    def pairs(self, size: int, apart: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """States, and those `apart` steps on, see `draw_pairs`: (size, *shape) each."""
        first, second = draw_pairs(self.episodes, size, apart, generator)
        return self.observe(first), self.observe(second)

    def observe(self, rows: Tensor) -> Tensor:
        """Normalised observations of rows (B, ...): (B, ..., *shape)."""
        return self._normalised(self.stored(rows))

    def stored(self, rows: Tensor) -> Tensor:
        """Observations of rows as they lie here: (B, ..., *shape)."""
        return self._at(self.obs, rows)

    def limits(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of each feature over all rows and entities: (D,) each."""
        parts = [self._normalised(part).flatten(0, -2) for part in self.obs.split(CHUNK)]
        low, high = ([getattr(p, of)(dim=0) for p in parts] for of in ("amin", "amax"))
        return torch.stack(low).amin(dim=0), torch.stack(high).amax(dim=0)

    def _at(self, column: Tensor, rows: Tensor) -> Tensor:
        """Entries of a column (R, ...) at rows (B, ...)."""
        return column[rows]

    def _normalised(self, obs: Tensor) -> Tensor:
        return obs if self.normalise is None else self.normalise(obs)

    def gather(self, rows: Indices) -> Batch:
        """The batch that lies at `rows`."""
        size = len(rows.state)
        following = rows.state + 1
        wanted = (rows.state, following, rows.value_goal, rows.policy_goal, rows.policy_subgoal)
        obs, next_obs, *goals = self.observe(torch.cat(wanted)).split(size)
        reward = self.rewards(rows)
        done = (reward == 0).float() if self.done_signal else torch.zeros_like(reward)
        action = self._at(self.action, rows.state)
        return Batch(obs, next_obs, action, reward, done, *goals, batch_size=[size])

    def rewards(self, rows: Indices) -> Tensor:
        """Of reaching the value goals at the next states: (B,)."""
        following = rows.state + 1
        if self.reward is None:
            return (rows.value_goal == following).float() - 1
        columns = self.reward_rows.items()
        reached = {name: self._at(column, following) for name, column in columns}
        asked = {name: self._at(column, rows.value_goal) for name, column in columns}
        return self.reward(reached, asked)
