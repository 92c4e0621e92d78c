"""Goals in hindsight, by the law of ECRL."""

import pytest
import torch

from common.data.goals import Episodes, HindsightLaw
from common.data.wants import Hindsight
from tests.helpers.buffers import make

STEPS = 30  # H: states s_0 to s_30, and a row with the goal behind them


def episodes(count: int, moved: list[int] | None = None) -> Episodes:
    first = torch.arange(count) * (STEPS + 2)
    numbers = None if moved is None else torch.tensor(moved, dtype=torch.long)
    return Episodes(first, torch.full((count,), STEPS + 1), first + STEPS + 1, numbers)


def draw(law: HindsightLaw, size: int, drawn: Episodes, seed: int = 0):
    return law.transitions(drawn, size, torch.Generator().manual_seed(seed))


def test_later_states_are_goals_by_the_law_of_their_distance() -> None:
    size = 200_000
    rows = draw(HindsightLaw(1.0), size, episodes(3))
    t, lag = rows.state % (STEPS + 2), rows.value_goal - rows.state
    assert torch.equal(rows.value_goal // (STEPS + 2), rows.state // (STEPS + 2))
    assert t.min() == 0 and t.max() == STEPS - 2
    assert lag.min() == 1 and (t + lag).max() == STEPS - 1
    for k in (1, 2, 8, 20, 29):
        expected = sum(1 / (29 * (29 - t)) for t in range(29 - k + 1))
        found = (lag == k).float().mean().item()
        assert found == pytest.approx(expected, abs=4 * (expected / size) ** 0.5)
    assert lag.float().mean().item() == pytest.approx(8, abs=0.1)


def test_the_first_share_of_a_batch_is_relabelled_and_the_rest_keeps_its_goal() -> None:
    size = 512
    rows = draw(HindsightLaw(0.8), size, episodes(5))
    own = rows.value_goal % (STEPS + 2) == STEPS + 1
    assert own.tolist() == [False] * 409 + [True] * 103
    assert torch.equal(rows.value_goal // (STEPS + 2), rows.state // (STEPS + 2))
    assert rows.policy_goal is rows.value_goal
    many = draw(HindsightLaw(0.0), 20_000, episodes(5))
    t = many.state % (STEPS + 2)
    shares = torch.bincount(t, minlength=STEPS).float() / 20_000
    assert len(shares) == STEPS and shares.min() > 0.5 / STEPS and shares.max() < 2 / STEPS
    assert (many.value_goal % (STEPS + 2) == STEPS + 1).all()


def test_a_share_comes_from_episodes_in_which_something_moved() -> None:
    def share(moved: list[int], wanted: float) -> float:
        rows = draw(HindsightLaw(0.8, wanted), 20_000, episodes(10, moved))
        episode = rows.state // (STEPS + 2)
        return ((episode == 2) | (episode == 7)).float().mean()

    assert share([2, 7], 0.6).item() == pytest.approx(0.6 + 0.4 * 0.2, abs=0.02)
    assert share([2, 7], 1.0) == 1
    assert share([2, 7], 0.0).item() == pytest.approx(0.2, abs=0.02)
    assert share([], 1.0).item() == pytest.approx(0.2, abs=0.02)


def test_rewards_are_those_of_the_goals_and_next_states_follow() -> None:
    buffer = make([STEPS + 1] * 4, reward=lambda reached, asked: -(asked["x"] - reached["x"]))
    buffer.reward_rows = {"x": buffer.obs[:, 0, 0]}
    law = HindsightLaw(1.0)
    batch = Hindsight(law).sample(buffer, 64, torch.Generator().manual_seed(3))
    rows = law.transitions(buffer.episodes, 64, torch.Generator().manual_seed(3))
    assert torch.equal(batch.obs[:, 0, 0], rows.state.float())
    assert torch.equal(batch.next_obs, batch.obs + 1)
    assert torch.equal(batch.reward, -(batch.value_goal - batch.next_obs)[:, 0, 0])
    assert torch.equal(batch.value_goal, batch.policy_goal)
