"""The law by which transitions, windows and their goals are drawn from episodes.

Pure functions of the episodes' extents and of a generator's numbers, so that every storage has the
same law. All episodes lie end to end, `first` is the first row of each, `length` its rows T:

    row        0    1    2   ...  T-2  T-1 |  T  ...
    episode    0    0    0         0    0  |  1
    stored    s_0  s_1  s_2      s_T-2 s_T-1            the observation BEFORE action a_t
    valid t    x    x    x         x    .               s_{t+1} must exist

A draw costs a few index operations, whatever the number and length of the episodes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Episodes(NamedTuple):
    """Extents of E episodes, in integers.

    Attributes:
        first: (E,) first row. length: (E,) number of rows.
        own: (E,) row of the goal that each episode was played for, which is none of its rows.
        moved: (M,) numbers of the episodes in which an object moved, ascending.
    """

    first: Tensor
    length: Tensor
    own: Tensor | None = None
    moved: Tensor | None = None


class Indices(NamedTuple):
    """Rows of B transitions with their goals: (B,) each."""

    state: Tensor
    value_goal: Tensor
    policy_goal: Tensor
    policy_subgoal: Tensor


@dataclass(frozen=True)
class GoalShares:
    """Where goals come from; the three shares sum to one.

    Attributes:
        current: the next state. future: a later state of the episode. random: another episode's.
        geometric: future goals lie Geometric(1 - gamma) steps ahead instead of uniformly.
    """

    current: float
    future: float
    random: float
    geometric: bool


@dataclass(frozen=True)
class GoalLaw:
    """Goals for values and for policies; `gamma` is the parameter of geometric ones."""

    value: GoalShares
    policy: GoalShares
    gamma: float

    def transitions(
        self, episodes: Episodes, size: int, generator: torch.Generator, subgoal_steps: int = 1
    ) -> Indices:
        """Rows of a batch: an episode uniformly, then a transition uniformly inside it.

        As published, an episode of T rows is first cut to T-1 of them, from row 0 or row 1 with
        equal chance, so its outermost transitions count half; `last` is the cut's last row.
        Subgoals lie `subgoal_steps` ahead, at most at the policy's goal.
        """
        u = _uniform(9, size, episodes, generator)
        episode, state, last = _draw_states(episodes, u[:3])
        value_goal = self._draw_goals(self.value, episodes, (episode, state, last), u[3:6])
        policy_goal = self._draw_goals(self.policy, episodes, (episode, state, last), u[6:9])
        own = (policy_goal >= state) & (policy_goal <= last)  # a random goal bounds nothing
        bound = torch.where(own, policy_goal, last)
        return Indices(state, value_goal, policy_goal, torch.minimum(state + subgoal_steps, bound))

    def windows(
        self, episodes: Episodes, size: int, generator: torch.Generator, slots: int, to_end: bool
    ) -> Tensor:
        """Rows of windows (B, H): from states as in `transitions` up to their goals, and the goals.

        The goals are the policy's or, `to_end`, the ends of the episodes.
        """
        u = _uniform(6, size, episodes, generator)
        episode, state, last = _draw_states(episodes, u[:3])
        if to_end:
            goal = episodes.first[episode] + episodes.length[episode] - 1
        else:
            goal = self._draw_goals(self.policy, episodes, (episode, state, last), u[3:])
        ahead = torch.arange(slots - 1, device=state.device)
        following = torch.minimum(state[:, None] + ahead, goal[:, None])
        return torch.cat([following, goal[:, None]], dim=1)

    def _draw_goals(
        self, shares: GoalShares, episodes: Episodes, drawn: tuple[Tensor, ...], u: Tensor
    ) -> Tensor:
        """Goal rows (B,) of what `_draw_states` drew; uniform u (3, B): kind, place, episode."""
        first, length, (episode, state, last) = episodes.first, episodes.length, drawn
        if shares.geometric:  # inverse of the geometric law's cumulative probability
            steps = 1 + torch.floor(torch.log1p(-u[1]) / torch.log(torch.tensor(self.gamma)))
            future = torch.minimum(state + steps.long(), last)
        else:
            future = torch.round((state + 1) * u[1] + last * (1 - u[1])).long()
        goal = torch.where(u[0] < shares.current, state + 1, future)
        if shares.random:
            other = (episode + 1 + (u[2] * (len(length) - 1)).long()) % len(length)
            anywhere = first[other] + (u[1] * length[other]).long()
            goal = torch.where(u[0] >= shares.current + shares.future, anywhere, goal)
        return goal


@dataclass(frozen=True)
class HindsightLaw:
    """Later states as goals, and the goals that episodes were played for (ECRL).

    Attributes:
        future: share of a batch whose goals are later states; the rest has its episodes' own.
        moved: share of a batch that is drawn from episodes in which an object moved.
    """

    future: float
    moved: float = 0.0

    def transitions(self, episodes: Episodes, size: int, generator: torch.Generator) -> Indices:
        """Rows of a batch: an episode uniformly, then one of its steps t.

        Of states s_0 to s_H the last is never a goal. For the first int(future size) samples t is
        uniform in 0..H-2, and the goal in t+1..H-1; for the others t is uniform in 0..H-1.
        """
        u = _uniform(4, size, episodes, generator)
        episode = self._draw_episodes(episodes, u[:2])
        first, goals = episodes.first[episode], episodes.length[episode] - 1  # H
        hindsight = torch.arange(size, device=first.device) < int(self.future * size)
        t = (u[2] * (goals - hindsight.long())).long()
        goal = first + t + 1 + (u[3] * (goals - 1 - t)).long()
        if episodes.own is not None:
            goal = torch.where(hindsight, goal, episodes.own[episode])
        return Indices(first + t, goal, goal, goal)

    def _draw_episodes(self, episodes: Episodes, u: Tensor) -> Tensor:
        episode = (u[0] * len(episodes.first)).long()
        if not self.moved or episodes.moved is None or not len(episodes.moved):
            return episode
        among = episodes.moved[(u[0] * len(episodes.moved)).long()]
        return torch.where(u[1] < self.moved, among, episode)

    def problem(self, episodes: Episodes, section: str) -> str | None:
        """The reason, with the keys of `section`, why episodes do not have what it draws."""
        if episodes.own is None and self.future < 1:
            return f"these episodes have no goals of their own; set {section}.p_hindsight=1"
        if episodes.moved is None and self.moved:
            return f"of these episodes nobody knows what moved; set {section}.moved_share=0"
        return None


def draw_pairs(
    episodes: Episodes, size: int, apart: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Rows of states in uniformly drawn episodes, and those `apart` steps on: (size,) each.

    In shorter episodes the second is the last state.
    """
    first, length = episodes.first, episodes.length
    u = _uniform(2, size, episodes, generator)
    episode = (u[0] * len(length)).long()
    apart = (length[episode] - 1).clamp(max=apart)
    start = first[episode] + (u[1] * (length[episode] - apart)).long()
    return start, start + apart


def _uniform(count: int, size: int, episodes: Episodes, generator: torch.Generator) -> Tensor:
    """(count, size) in [0, 1)."""
    device = episodes.first.device
    return torch.rand(count, size, generator=generator, dtype=torch.float64, device=device)


def _draw_states(episodes: Episodes, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Episodes, rows in them, and the last rows of their cuts (B,), from uniform u (3, B)."""
    first, length = episodes.first, episodes.length
    episode = (u[0] * len(length)).long()
    start = first[episode] + (u[1] < 0.5)
    span = length[episode] - 1  # rows of the cut
    return episode, start + (u[2] * (span - 1)).long(), start + span - 1
