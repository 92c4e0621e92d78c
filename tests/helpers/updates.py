"""Updates of small agents on made-up data."""

import torch

from agents.observations.spec import ObservationSpec
from common.data.buffer import Buffer
from common.data.draws import Draws
from common.data.goals import GoalLaw, GoalShares
from common.data.wants import Transitions
from common.training.updates import Updates
from tests.helpers.agents import CPU, SETS

SUBGOALS = Transitions(5)
FUTURE = GoalShares(0.2, 0.8, 0.0, False)


def make_buffer(
    spec: ObservationSpec = SETS,
    device: torch.device = CPU,
    actions: int = 2,
    gamma: float = 0.9,
    done_signal: bool = False,
) -> Buffer:
    g = torch.Generator().manual_seed(0)
    obs = torch.randn(60, *spec.shape, generator=g)
    if spec.kind == "image":
        obs = (50 * obs.abs()).to(torch.uint8)
    return Buffer(
        obs.to(device),
        (torch.rand(60, actions, generator=g) * 2 - 1).to(device),
        torch.tensor([20, 40], device=device),
        {},
        None,
        goals=GoalLaw(FUTURE, FUTURE, gamma),
        done_signal=done_signal,
    )


def make_draws(buffer: Buffer, size: int = 16, seed: int = 3, wants=SUBGOALS) -> Draws:
    return Draws(buffer, size, seed, wants)


def run(updates: Updates, steps: range) -> dict[str, torch.Tensor]:
    for step in steps:
        updates.run(step)
    return {name: total.clone() for name, total in updates.sums().items()}


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
