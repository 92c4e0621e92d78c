"""V(s, g) by the distance of s and g: `python -m common.tools.values RUN_FOLDER...`.

Of pairs of states k steps apart in the training data it tells

- V(s_t, s_{t+k}) with the range of its middle 80 %, beside the discounted rewards on the data's way
  until the goal is reached for the first time. That way is seldom the shortest, so V may lie above
  them; far above, everything seems within reach and a competence radius keeps nothing out.
- progress: how often V(s_{t+j}, s_{t+k}) > V(s_t, s_{t+k}), j = subgoal_k steps on the way, if the
  goal is not reached at t. This is what choosing subgoals by value rests on; one half is chance.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from agents.base import Agent
from common.data.buffer import Buffer
from common.foundation.errors import UserError, one_line_errors
from common.runs.agents import load_agent
from common.runs.loading import load_training_data
from common.settings.inherit import find_checkpoint

DISTANCES = (0, 5, 10, 25, 50, 75, 100, 150, 200, 300, 500)  # steps
PAIRS = 1000  # of each distance
MIDDLE = (0.1, 0.9)  # quantiles
USUAL_STEP = 25  # j, of agents without subgoals: the paper's length of a subgoal


@dataclass(frozen=True)
class Row:
    """V over pairs of states `distance` steps apart, `way` their discounted rewards on the way.

    `progress` is NaN up to j steps.
    """

    distance: int
    mean: float
    low: float
    high: float
    way: float
    progress: float


def value_rows(agent: Agent, buffer: Buffer, gamma: float, seed: int = 0) -> list[Row]:
    """A row for each of `DISTANCES` that some episode has. Agent and buffer on the CPU."""
    longest = int(buffer.episodes.length.max()) - 1
    return [_row(agent, buffer, gamma, k, seed) for k in DISTANCES if k <= longest]


@torch.no_grad()
def _row(agent: Agent, buffer: Buffer, gamma: float, distance: int, seed: int) -> Row:
    start = _starts(buffer, distance, torch.Generator().manual_seed(seed))  # (PAIRS,)

    def value(ahead: int) -> Tensor:
        """V of the state `ahead` steps on."""
        states, goals = buffer.observe(start + ahead), buffer.observe(start + distance)
        return agent.value(states, goals)

    v = value(0)
    low, high = v.quantile(v.new_tensor(MIDDLE)).tolist()
    missing = _rewards(buffer, start, distance)  # (k + 1, PAIRS), 0 where the goal is reached
    not_yet = (missing < 0).cummin(dim=0).values
    powers = gamma ** torch.arange(distance)
    way = (powers[:, None] * missing[1:] * not_yet[1:]).sum(dim=0)
    step, progress = agent.wants.subgoal_steps or USUAL_STEP, math.nan
    if step < distance:
        progress = (value(step) > v)[not_yet[0]].float().mean().item()
    return Row(distance, v.mean().item(), low, high, way.mean().item(), progress)


def _starts(buffer: Buffer, distance: int, generator: torch.Generator) -> Tensor:
    """Rows (PAIRS,) whose episodes go on for `distance` steps."""
    first, length = buffer.episodes
    long_enough = (length > distance).nonzero()[:, 0]
    episode = long_enough[torch.randint(len(long_enough), (PAIRS,), generator=generator)]
    room = length[episode] - distance
    return first[episode] + (torch.rand(PAIRS, generator=generator) * room).long()


def _rewards(buffer: Buffer, start: Tensor, distance: int) -> Tensor:
    """Rewards (k + 1, PAIRS) of being 0 to k steps on, the goal being the state k steps on."""
    ahead = torch.arange(distance + 1)[:, None]
    if buffer.reward is None:
        return (ahead == distance).float().expand(-1, len(start)) - 1
    rows = (start + ahead).flatten()
    goals = (start + distance).repeat(distance + 1)
    columns = buffer.reward_rows
    there, asked = ({n: c[i] for n, c in columns.items()} for i in (rows, goals))
    return buffer.reward(there, asked).view(distance + 1, -1)


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    lines = [f"{'steps':>6}{'V':>9}{'middle 80 %':>20}{'on the way':>12}{'progress':>10}"]
    for row in rows:
        span = f"{row.low:.1f} to {row.high:.1f}"
        told = "-" if math.isnan(row.progress) else f"{row.progress:.2f}"
        lines.append(f"{row.distance:6}{row.mean:9.1f}{span:>20}{row.way:12.1f}{told:>10}")
    return "\n".join(lines)


def describe(run: str) -> str:
    """The table of a checkpoint; raises `UserError` for agents without V(s, g)."""
    device = torch.device("cpu")
    setup, config, updates = load_agent(find_checkpoint(run), device)
    if not hasattr(setup.agent, "value"):
        raise UserError(f"{run}: {config.agent} has no value function")
    arguments = config, setup.world, setup.observation, device, setup.normaliser
    buffer, _ = load_training_data(*arguments)
    heading = f"{run}, {updates} updates, gamma {config.gamma}"
    return f"{heading}\n{table(value_rows(setup.agent, buffer, config.gamma))}"


def main() -> None:
    runs = sys.argv[1:]
    if not runs:
        raise SystemExit("usage: python -m common.tools.values RUN_FOLDER...")
    with one_line_errors():
        for run in runs:
            print(describe(run))


if __name__ == "__main__":
    main()
