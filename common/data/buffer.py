"""The offline dataset as flat tensors, and the law that draws transitions and goals from it.

All episodes lie end to end; `first` holds each episode's first row, `length` its number of rows T:

    row        0    1    2   ...  T-2  T-1 |  T  ...
    episode    0    0    0         0    0  |  1
    stored    s_0  s_1  s_2      s_T-2 s_T-1            the observation BEFORE action a_t
    valid t    x    x    x         x    .               s_{t+1} must exist

A batch costs a few index operations, whatever the episode length or the size of the dataset.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from common.data.batches import Batch, GoalShares, Indices, Windows
from common.foundation.errors import UserError

CHUNK = 1 << 14  # rows: what limits are taken of at a time, to need no second observations
RewardFunction = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]


class Buffer:
    """Draws training batches.

    Args:
        obs: (R, *shape) observations of all rows, normalised unless `normalise` does that.
        action: (R, A).
        length: (E,) rows per episode, at least 3 each.
        reward_rows: the dataset's columns, (R, ...) each, that `reward` reads.
        reward: (rows of next states, rows of goals) -> (B,); `None` for the unsupervised reward, 0
            iff the goal is the very next state, else -1.
        value_goals, policy_goals: goal shares.
        gamma: discount, the parameter of geometric goals.
        subgoal_k: steps from a state to its subgoal (at most up to the goal).
        done_signal: whether a reached goal ends bootstrapping.
        normalise: is applied to what is drawn of `obs`, for what lies on disk as it is.
    """

    def __init__(
        self,
        obs: Tensor,
        action: Tensor,
        length: Tensor,
        reward_rows: Mapping[str, Tensor],
        reward: RewardFunction | None,
        *,
        value_goals: GoalShares,
        policy_goals: GoalShares,
        gamma: float,
        subgoal_k: int,
        done_signal: bool,
        normalise: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if int(length.min()) < 3:
            raise UserError(f"an episode has {int(length.min())} steps; training needs 3 or more")
        if (value_goals.random or policy_goals.random) and len(length) < 2:
            raise UserError("goals of other episodes were asked for, but there is one episode only")
        self.obs, self.action, self.length = obs, action, length
        self.first = torch.cumsum(length, 0) - length
        self.reward_rows, self.reward = dict(reward_rows), reward
        self.value_goals, self.policy_goals = value_goals, policy_goals
        self.gamma, self.subgoal_k, self.done_signal = gamma, subgoal_k, done_signal
        self.normalise = normalise

    def __len__(self) -> int:
        return len(self.action)

    @property
    def bytes(self) -> int:
        """Memory that its tensors take."""
        tensors = (self.obs, self.action, self.length, self.first, *self.reward_rows.values())
        return sum(t.numel() * t.element_size() for t in tensors)

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """One batch of `size` transitions."""
        return self.gather(self.draw(size, generator))

    def pairs(self, size: int, apart: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """States of uniformly drawn episodes, and those `apart` steps on: (size, *shape) each.

        In shorter episodes the second is the last state.
        """
        u = self._uniform(2, size, generator)
        episode = (u[0] * len(self.length)).long()
        apart = (self.length[episode] - 1).clamp(max=apart)
        first = self.first[episode] + (u[1] * (self.length[episode] - apart)).long()
        return self.observe(first), self.observe(first + apart)

    def windows(
        self, size: int, generator: torch.Generator, *, slots: int, to_end: bool
    ) -> Windows:
        """`size` windows of H slots each, with policy goals or, `to_end`, their episodes' ends."""
        return self.gather_windows(self.draw_windows(size, generator, slots=slots, to_end=to_end))

    def observe(self, rows: Tensor) -> Tensor:
        """Normalised observations of rows (B, ...): (B, ..., *shape)."""
        return self._normalised(self.obs[rows])

    def limits(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of each feature over all rows and entities: (D,) each."""
        parts = [self._normalised(part).flatten(0, -2) for part in self.obs.split(CHUNK)]
        low, high = ([getattr(p, of)(dim=0) for p in parts] for of in ("amin", "amax"))
        return torch.stack(low).amin(dim=0), torch.stack(high).amax(dim=0)

    def _normalised(self, obs: Tensor) -> Tensor:
        return obs if self.normalise is None else self.normalise(obs)

    def draw(self, size: int, generator: torch.Generator) -> Indices:
        """Rows of a batch: an episode uniformly, then a transition uniformly inside it.

        As published, an episode of T rows is first cut to T-1 of them, from row 0 or row 1 with
        equal chance, so its outermost transitions count half; `last` is the cut's last row.
        """
        u = self._uniform(9, size, generator)
        episode, state, last = self._draw_states(u[:3])
        value_goal = self._draw_goals(self.value_goals, episode, state, last, u[3:6])
        policy_goal = self._draw_goals(self.policy_goals, episode, state, last, u[6:9])
        own = (policy_goal >= state) & (policy_goal <= last)  # a random goal bounds nothing
        bound = torch.where(own, policy_goal, last)
        return Indices(state, value_goal, policy_goal, torch.minimum(state + self.subgoal_k, bound))

    def draw_windows(
        self, size: int, generator: torch.Generator, *, slots: int, to_end: bool
    ) -> Tensor:
        """Rows of windows, (B, H): from states as in `draw` up to their goals, and the goals."""
        u = self._uniform(6, size, generator)
        episode, state, last = self._draw_states(u[:3])
        if to_end:
            goal = self.first[episode] + self.length[episode] - 1
        else:
            goal = self._draw_goals(self.policy_goals, episode, state, last, u[3:])
        ahead = torch.arange(slots - 1, device=state.device)
        following = torch.minimum(state[:, None] + ahead, goal[:, None])
        return torch.cat([following, goal[:, None]], dim=1)

    def _uniform(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """(count, size) in [0, 1)."""
        device = self.first.device
        return torch.rand(count, size, generator=generator, dtype=torch.float64, device=device)

    def _draw_states(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Episodes, rows in them, and the last rows of their cuts (B,), from uniform u (3, B)."""
        episode = (u[0] * len(self.length)).long()
        start = self.first[episode] + (u[1] < 0.5)
        span = self.length[episode] - 1  # rows of the cut
        return episode, start + (u[2] * (span - 1)).long(), start + span - 1

    def _draw_goals(
        self, shares: GoalShares, episode: Tensor, state: Tensor, last: Tensor, u: Tensor
    ) -> Tensor:
        """Goal rows (B,) from three uniform draws per row, u (3, B): kind, place, episode."""
        if shares.geometric:  # inverse of the geometric law's cumulative probability
            steps = 1 + torch.floor(torch.log1p(-u[1]) / torch.log(torch.tensor(self.gamma)))
            future = torch.minimum(state + steps.long(), last)
        else:
            future = torch.round((state + 1) * u[1] + last * (1 - u[1])).long()
        goal = torch.where(u[0] < shares.current, state + 1, future)
        if shares.random:
            other = (episode + 1 + (u[2] * (len(self.length) - 1)).long()) % len(self.length)
            anywhere = self.first[other] + (u[1] * self.length[other]).long()
            goal = torch.where(u[0] >= shares.current + shares.future, anywhere, goal)
        return goal

    def rewards(self, rows: Indices) -> Tensor:
        """Of reaching the value goals at the next states: (B,)."""
        following = rows.state + 1
        if self.reward is None:
            return (rows.value_goal == following).float() - 1
        reached = {name: column[following] for name, column in self.reward_rows.items()}
        asked = {name: column[rows.value_goal] for name, column in self.reward_rows.items()}
        return self.reward(reached, asked)

    def gather(self, rows: Indices) -> Batch:
        """The batch that lies at `rows`."""
        size = len(rows.state)
        following = rows.state + 1
        wanted = (rows.state, following, rows.value_goal, rows.policy_goal, rows.policy_subgoal)
        obs, next_obs, *goals = self.observe(torch.cat(wanted)).split(size)
        reward = self.rewards(rows)
        done = (reward == 0).float() if self.done_signal else torch.zeros_like(reward)
        return Batch(obs, next_obs, self.action[rows.state], reward, done, *goals)

    def gather_windows(self, rows: Tensor) -> Windows:
        """The windows that lie at `rows` (B, H)."""
        moving = rows < rows[:, -1:]  # before the goal
        action = torch.where(moving.unsqueeze(-1), self.action[rows], 0.0)
        return Windows(self.observe(rows), action)
