"""Storage of a run's newest episodes, of which batches are drawn as of a fixed dataset."""

from collections import deque
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from common.data.buffer import Buffer, RewardFunction
from common.data.goals import Episodes, GoalLaw


class Replay(Buffer):
    """The newest episodes of a run that acts, in a ring of R rows; the oldest make room.

    Rows are counted on from the first that ever was, and lie at their number modulo R, so a law of
    goals sees episodes end to end. The sampling laws do not know where the ring begins: a replay
    filled anew with the same newest episodes gives the same batches.

    Args:
        rows: R. shape, dtype: of an observation. action_dim: A. columns: shape of a row of each
            column that `reward` reads. own_goals: whether episodes have goals of their own.
        normalise, reward, goals, done_signal: see `Buffer`; the normaliser may change.
    """

    grows = True

    def __init__(
        self,
        rows: int,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        action_dim: int,
        columns: Mapping[str, tuple[int, ...]],
        reward: RewardFunction | None,
        *,
        goals: GoalLaw,
        own_goals: bool,
        done_signal: bool,
        normalise: Callable[[Tensor], Tensor],
        device: torch.device,
    ) -> None:
        super().__init__(
            torch.zeros(rows, *shape, dtype=dtype, device=device),
            torch.zeros(rows, action_dim, device=device),
            torch.empty(0, dtype=torch.long, device=device),
            {name: torch.zeros(rows, *own, device=device) for name, own in columns.items()},
            reward,
            goals=goals,
            done_signal=done_signal,
            normalise=normalise,
        )
        self._own_goals = own_goals
        self._extents: deque[tuple[int, int, bool]] = deque()  # first, length, moved; oldest first
        self._end = 0  # rows that there ever were
        self._tabulate()

    def __len__(self) -> int:
        return self._end - self._extents[0][0] if self._extents else 0

    def add(
        self,
        obs: Tensor,
        action: Tensor,
        columns: Mapping[str, Tensor],
        length: int,
        moved: bool,
    ) -> None:
        """Store an episode of `length` rows, and after them its own goal if there are such.

        Args:
            obs: (T, *shape), not normalised. action: (T, A). columns: (T, ...) each.
            moved: whether an object moved in it.
        """
        rows, size = torch.arange(self._end, self._end + len(obs)), len(self.action)
        if len(obs) > size:
            raise ValueError(f"an episode of {len(obs)} rows, the replay has {size}")
        for column, own in self._columns(obs, action, columns):
            column[rows.to(column.device) % size] = own.to(column.device)
        self._extents.append((self._end, length, moved))
        self._end += len(obs)
        while self._extents[0][0] < self._end - size:
            self._extents.popleft()
        self._tabulate()

    def _tabulate(self) -> None:
        table = torch.tensor(list(self._extents), device=self.action.device).reshape(-1, 3)
        first, length, moved = table.T.contiguous().long()
        own = first + length if self._own_goals else None
        self.episodes = Episodes(first, length, own, moved.nonzero()[:, 0])

    def _columns(
        self, obs: Tensor, action: Tensor, columns: Mapping[str, Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """The ring's columns beside what is to be written to them."""
        pairs = [(column, columns[name]) for name, column in self.reward_rows.items()]
        return [(self.obs, obs), (self.action, action), *pairs]

    def _at(self, column: Tensor, rows: Tensor) -> Tensor:
        return column[rows % len(column)]

    def raw(self, newest: int) -> Tensor:
        """Observations (R', *shape), not normalised, of the newest episodes but their last ones.

        The last observation of an episode is of no transition's beginning.
        """
        extents = list(self._extents)[-newest:]
        parts = [self.stored(torch.arange(f, f + n - 1)) for f, n, _ in extents]
        return torch.cat(parts)
