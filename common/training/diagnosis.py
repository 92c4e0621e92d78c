"""Signs of trouble in learning, told while it goes on, with what to look at."""

import math
from collections.abc import Mapping

import torch

from common.data.buffer import Buffer
from common.foundation.messages import warn

TOLERANCE = 0.1  # share of the range of values by which a mean may lie outside of it
PAIRS = 4096  # transitions with goals whose rewards are looked at
ESTIMATES = ("value/mean", "critic/mean", "policy/q")
FLAT = 0.005  # standard deviation of V over a batch, as a share of that range, that tells nothing
SETTLED = 2000  # updates after which V should tell states apart; at first all values fall together

Problems = dict[str, str]  # kind -> one line


class Watch:
    """Tells of each kind of problem when it appears, see `common.foundation.messages`.

    One that lasts is told of once; one that went away and comes back is told of again.
    """

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = {}

    def report(self, step: int, problems: Problems, source: str = "") -> None:
        """Tell what is new among the problems that `source` finds at update `step`."""
        new = problems.keys() - self._known.get(source, set())
        self._known[source] = set(problems)
        for kind in sorted(new):
            warn(f"update {step}: {problems[kind]}")


def value_problems(
    means: Mapping[str, float], value_range: tuple[float, float] | None, step: int
) -> Problems:
    """Mean estimates that no values can have, and a V that does not tell states apart.

    `TOLERANCE` is for networks that are not trained yet. Without a range there are no values.
    """
    if value_range is None:
        return {}
    lowest, highest = value_range
    spread = highest - lowest
    margin, possible = TOLERANCE * spread, f"[{lowest:.4g}, {highest:.4g}]"
    problems = {
        name: f"{name} is {means[name]:.4g}, but values lie in {possible}: "
        "look at the curves of value and critic, lower lr, or tau and expectile of the agent"
        for name in ESTIMATES
        if name in means and not lowest - margin <= means[name] <= highest + margin
    }
    if step >= SETTLED and means.get("value/std", math.inf) < FLAT * spread:
        problems["value/std"] = (
            f"value/std is {means['value/std']:.2g}, so V is nearly the same for all states and "
            "goals: it has learned nothing yet, or never will again if that lasts; lower lr"
        )
    return problems


def reward_problems(buffer: Buffer, generator: torch.Generator) -> Problems:
    """Rewards that are the same for all pairs of states and goals that training draws."""
    rewards = buffer.rewards(buffer.goals.transitions(buffer.episodes, PAIRS, generator))
    if not (rewards == rewards[0]).all():
        return {}
    return {
        "reward": f"the reward is {float(rewards[0]):g} for all of {PAIRS} drawn states and goals, "
        "so values tell nothing: look at reward, p_curgoal_value and the dataset's episodes"
    }
