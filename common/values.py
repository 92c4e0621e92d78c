"""What V knows at which distance: `python -m common.values RUN_FOLDER...`.

Of pairs of states k steps apart in the training data it tells

- V(s_t, s_{t+k}) with the range of its middle 80 %, beside -(1 - gamma^k) / (1 - gamma), the cost
  of k steps. The data's way is seldom the shortest, so V may lie above that; far above it,
  everything seems within reach and a competence radius keeps nothing out.
- progress: how often V(s_{t+j}, s_{t+k}) > V(s_t, s_{t+k}), j = subgoal_k steps on the way. This is
  what choosing subgoals by value rests on; one half is chance.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from agents.base import Agent
from common.agent_files import load_agent
from common.buffer import Buffer
from common.errors import UserError, one_line_errors
from common.evaluation_settings import find_checkpoint
from common.training_data import load_training_data

DISTANCES = (0, 5, 10, 25, 50, 75, 100, 150, 200, 300, 500)  # steps
PAIRS = 1000  # of each distance
MIDDLE = (0.1, 0.9)  # quantiles
USUAL_STEP = 25  # j, of agents without subgoals: the paper's length of a subgoal


@dataclass(frozen=True)
class Row:
    """V over pairs of states `distance` steps apart; `progress` is NaN up to j steps."""

    distance: int
    mean: float
    low: float
    high: float
    steps: float  # what the steps between them cost
    progress: float


def value_rows(agent: Agent, buffer: Buffer, gamma: float, seed: int = 0) -> list[Row]:
    """A row for each of `DISTANCES` that some episode has. A function of its arguments alone."""
    longest = int(buffer.length.max()) - 1
    return [_row(agent, buffer, gamma, k, seed) for k in DISTANCES if k <= longest]


@torch.no_grad()
def _row(agent: Agent, buffer: Buffer, gamma: float, distance: int, seed: int) -> Row:
    generator = torch.Generator().manual_seed(seed)
    step = getattr(agent.settings, "subgoal_k", USUAL_STEP)
    episodes = (buffer.length.cpu() > distance).nonzero()[:, 0]
    episode = episodes[torch.randint(len(episodes), (PAIRS,), generator=generator)]
    room = buffer.length.cpu()[episode] - distance
    start = buffer.first.cpu()[episode] + (torch.rand(PAIRS, generator=generator) * room).long()
    device = agent.context.device

    def value(ahead: int) -> torch.Tensor:
        """V of the state `ahead` steps on."""
        states, goals = buffer.observe(start + ahead), buffer.observe(start + distance)
        return agent.value(states.to(device), goals.to(device))

    v = value(0)
    low, high = v.quantile(v.new_tensor(MIDDLE)).tolist()
    progress = (value(step) > v).float().mean().item() if step < distance else float("nan")
    cost = -(1 - gamma**distance) / (1 - gamma)
    return Row(distance, v.mean().item(), low, high, cost, progress)


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    lines = [f"{'steps':>6}{'V':>9}{'middle 80 %':>20}{'their cost':>12}{'progress':>10}"]
    for row in rows:
        span = f"{row.low:.1f} to {row.high:.1f}"
        told = "-" if row.progress != row.progress else f"{row.progress:.2f}"
        lines.append(f"{row.distance:6}{row.mean:9.1f}{span:>20}{row.steps:12.1f}{told:>10}")
    return "\n".join(lines)


def describe(run: str) -> str:
    """The table of a checkpoint; raises `UserError` for agents without V(s, g)."""
    device = torch.device("cpu")
    setup, config, updates = load_agent(find_checkpoint(run), device)
    if not hasattr(setup.agent, "value"):
        raise UserError(f"{run}: {config.agent} has no value function")
    buffer, _ = load_training_data(
        config, setup.world, setup.observation, device, setup.normaliser, rewards=False
    )
    heading = f"{run}, {updates} updates, gamma {config.gamma}"
    return f"{heading}\n{table(value_rows(setup.agent, buffer, config.gamma))}"


def main() -> None:
    runs = sys.argv[1:]
    if not runs:
        raise SystemExit("usage: python -m common.values RUN_FOLDER...")
    with one_line_errors():
        for run in runs:
            print(describe(run))


if __name__ == "__main__":
    main()
