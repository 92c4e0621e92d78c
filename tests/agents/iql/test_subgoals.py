"""Subgoal selection, case by case, and what can be said about it."""

import pytest
import torch

from agents.iql.subgoals import HEADING, Proposal, select_subgoals


def choose(reach: list, remaining: list, direct: float, radius: float | None) -> tuple:
    candidates = torch.arange(len(reach)).float().view(1, -1, 1, 1) + 10
    goal = torch.full((1, 1, 1), -1.0)
    chosen, index = select_subgoals(
        candidates,
        goal,
        torch.tensor([reach]),
        torch.tensor([remaining]),
        torch.tensor([direct]),
        radius,
    )
    return chosen.item(), index.item()


@pytest.mark.parametrize(
    ("reach", "remaining", "direct", "radius", "chosen"),
    [
        pytest.param(
            [-10.0, -29.0, -31.0], [-60.0, -40.0, -5.0], -80.0, -30.0, (11.0, 1), id="nearest"
        ),
        pytest.param([-30.0, -10.0], [-40.0, -60.0], -80.0, -30.0, (10.0, 0), id="on the radius"),
        pytest.param([-10.0, -20.0], [-60.0, -40.0], -39.0, -30.0, (-1.0, -1), id="goal is nearer"),
        pytest.param([-50.0, -60.0], [-1.0, -2.0], -90.0, -30.0, (-1.0, -1), id="nothing in reach"),
        pytest.param([-99.0, -1.0], [-3.0, -9.0], -2.0, None, (10.0, 0), id="no filter"),
    ],
)
def test_the_candidate_in_reach_that_is_nearest_to_the_goal_or_the_goal(
    reach, remaining, direct, radius, chosen
) -> None:
    assert choose(reach, remaining, direct, radius) == chosen


def test_environments_are_chosen_for_independently() -> None:
    torch.manual_seed(0)
    candidates, goal = torch.randn(5, 7, 3, 2), torch.randn(5, 3, 2)
    reach, remaining, direct = -40 * torch.rand(5, 7), -40 * torch.rand(5, 7), -40 * torch.rand(5)
    together, index = select_subgoals(candidates, goal, reach, remaining, direct, -20.0)
    for i in range(5):
        rows = slice(i, i + 1)
        alone, _ = select_subgoals(
            candidates[rows], goal[rows], reach[rows], remaining[rows], direct[rows], -20.0
        )
        assert torch.equal(together[rows], alone)
    assert (index == -1).any() and (index >= 0).any()


def explain(reach: list, index: int, radius: float | None) -> list[str]:
    """The words of the line for the second of two environments."""
    other = [0.0] * len(reach)
    proposal = Proposal(
        torch.zeros(2, 1, 1),
        torch.tensor([0, index]),
        torch.tensor([other, reach]),
        torch.tensor([other, [-60.0, -40.0, -5.0]]),
        torch.tensor([0.0, -80.0]),
        radius,
    )
    heading, _, line = proposal.table()
    assert heading == HEADING and len(line) >= len(HEADING) - 3
    return line.split()


def test_a_line_tells_what_a_subgoal_was_chosen_by() -> None:
    reach = [-10.0, -29.0, -31.0]
    expected = ["-80.00", "2/3", "-40.00", "-29.00", "candidate", "1"]
    assert explain(reach, 1, -30.0) == expected
    assert explain(reach, 2, None)[1:] == ["3/3", "-5.00", "-31.00", "candidate", "2"]
    assert explain(reach, -1, -5.0)[1:] == ["0/3", "-", "-", "goal"]
