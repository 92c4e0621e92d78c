"""The sampling law of transitions and goals, against the law itself."""

import pytest
import torch

from common.data.buffer import Buffer
from common.data.goals import GoalShares
from common.foundation.errors import UserError
from tests.helpers.buffers import make


def draw(buffer: Buffer, size: int = 200_000, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return buffer.goals.transitions(buffer.episodes, size, generator, subgoal_steps=5)


def draw_windows(buffer: Buffer, size: int, **how) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return buffer.goals.windows(buffer.episodes, size, generator, **how)


def shares(x: torch.Tensor, low: int, high: int) -> torch.Tensor:
    return torch.bincount(x - low, minlength=high - low) / len(x)


def test_pairs_lie_so_many_steps_apart_and_stay_in_their_episode() -> None:
    buffer = make([4, 30])
    first, second = buffer.pairs(100_000, 10, torch.Generator().manual_seed(0))
    first, second = first.flatten(), second.flatten()
    short = first < 4
    assert abs(short.float().mean() - 0.5) < 0.01
    assert (first[short] == 0).all() and (second[short] == 3).all()  # its length allows no more
    assert (second[~short] - first[~short] == 10).all()
    assert torch.allclose(shares(first[~short].long(), 4, 24), torch.tensor(1 / 20), atol=0.005)
    assert second.max() == 33


def test_episodes_are_uniform_whatever_their_length() -> None:
    rows = draw(make([4, 40, 400])).state
    for low, high in ((0, 4), (4, 44), (44, 444)):
        inside = ((rows >= low) & (rows < high)).float().mean()
        assert abs(inside - 1 / 3) < 0.01


def test_transitions_inside_an_episode() -> None:
    """T rows cut to T-1 from row 0 or 1; the last row of the cut has no successor in it."""
    length = 8
    observed = shares(draw(make([length])).state, 0, length)
    expected = torch.zeros(length)
    for start in (0, 1):
        expected[start : start + length - 2] += 0.5 / (length - 2)
    assert torch.allclose(observed, expected, atol=0.005)


def test_future_goals_are_uniform_with_half_weight_at_both_ends() -> None:
    """goal = round((t+1) d + last (1-d)): rounding halves the two outermost goals."""
    length = 12
    indices = draw(make([length]), 400_000)
    chosen = indices.value_goal[indices.state == 4]
    expected = torch.zeros(length)
    for last in (length - 2, length - 1):
        span = last - 5
        weights = torch.full((span + 1,), 1 / span)
        weights[0] = weights[-1] = 0.5 / span
        expected[5 : last + 1] += 0.5 * weights
    assert torch.allclose(shares(chosen, 0, length), expected, atol=0.01)


def test_geometric_goals() -> None:
    geometric = GoalShares(0.0, 1.0, 0.0, True)
    indices = draw(make([500], value=geometric), 400_000)
    ahead = (indices.value_goal - indices.state)[indices.state < 300]
    for steps in (1, 2, 5, 10):
        expected = 0.1 * 0.9 ** (steps - 1)
        assert abs((ahead == steps).float().mean() - expected) < 0.004


def test_shares_of_goal_kinds() -> None:
    lengths = [50] * 20
    buffer = make(lengths, value=GoalShares(0.2, 0.5, 0.3, False))
    indices = draw(buffer)
    other = indices.value_goal // 50 != indices.state // 50
    assert abs(other.float().mean() - 0.3) < 0.01
    following = indices.value_goal == indices.state + 1
    assert 0.2 < following.float().mean() < 0.25  # a few future goals are the next state too
    hit = torch.bincount((indices.value_goal // 50)[other], minlength=20) / other.sum()
    assert torch.allclose(hit, torch.full((20,), 1 / 20), atol=0.01)


def test_subgoals_lie_k_steps_ahead_but_not_beyond_the_policy_goal() -> None:
    indices = draw(make([30, 30]))
    expected = torch.minimum(indices.state + 5, indices.policy_goal)
    assert torch.equal(indices.policy_subgoal, expected)
    assert (indices.policy_goal > indices.state).all()
    assert (indices.policy_goal // 30 == indices.state // 30).all()


def test_windows_follow_the_episode_up_to_their_goal() -> None:
    """Row by row, by a slow loop: at, before and past the goal."""
    buffer = make([3, 9, 30])
    windows = buffer.windows(3000, torch.Generator().manual_seed(0), slots=5, to_end=False)
    near = 0
    for obs, action in zip(windows.obs.flatten(1).tolist(), windows.action.tolist(), strict=True):
        t, goal = obs[0], obs[4]
        assert t < goal
        near += goal - t < 4
        for j in range(5):
            moving = j < 4 and t + j < goal
            assert obs[j] == (t + j if moving else goal)
            assert action[j] == [t + j if moving else 0]
    assert 300 < near < 2700


def test_windows_have_the_law_of_transitions_and_policy_goals() -> None:
    buffer = make([5, 8], policy=GoalShares(0.2, 0.8, 0.0, False))
    rows = draw_windows(buffer, 200_000, slots=3, to_end=False)
    indices = draw(buffer)
    ours, theirs = 13 * rows[:, 0] + rows[:, 2], 13 * indices.state + indices.policy_goal
    assert torch.allclose(shares(ours, 0, 169), shares(theirs, 0, 169), atol=0.005)


def test_windows_to_the_end_have_the_last_state_as_goal() -> None:
    buffer = make([5, 8])
    rows = draw_windows(buffer, 10_000, slots=4, to_end=True)
    assert torch.equal(rows[:, 3], torch.where(rows[:, 0] < 5, 4, 12))
    expected = shares(draw(buffer).state, 0, 13)
    assert torch.allclose(shares(rows[:, 0], 0, 13), expected, atol=0.02)


def test_windows_gather_what_they_show_and_nothing_else() -> None:
    """Observations of their rows, normalised after they were drawn, and no rewards."""

    def reward(rows, goals):
        raise AssertionError

    seen = []

    def normalise(obs):
        seen.append(obs.shape)
        return -obs

    buffer = make([20], reward=reward, normalise=normalise)
    windows = buffer.windows(7, torch.Generator().manual_seed(1), slots=4, to_end=False)
    assert seen == [(7, 4, 1, 1)] and windows.obs.max() <= 0
    assert [limit.tolist() for limit in buffer.limits()] == [[-19], [0]]


def test_unsupervised_reward_is_zero_only_for_the_next_state() -> None:
    buffer = make([20, 20], value=GoalShares(0.5, 0.5, 0.0, False), done_signal=True)
    batch = buffer.sample(5000, torch.Generator().manual_seed(1))
    hit = batch.value_goal.flatten() == batch.next_obs.flatten()
    assert torch.equal(batch.reward, hit.float() - 1)
    assert torch.equal(batch.done, hit.float())
    assert torch.equal(batch.next_obs, batch.obs + 1)
    assert torch.equal(batch.action.flatten(), batch.obs.flatten())


def test_environment_reward_compares_next_row_with_goal_row() -> None:
    def reward(rows, goals):
        return -(rows["x"] != goals["x"]).float()

    buffer = make([20], value=GoalShares(0.5, 0.5, 0.0, False), reward=reward)
    buffer.reward_rows = {"x": torch.arange(20) // 3}
    batch = buffer.sample(1000, torch.Generator().manual_seed(1))
    expected = -(batch.next_obs.flatten() // 3 != batch.value_goal.flatten() // 3).float()
    assert torch.equal(batch.reward, expected)
    assert (batch.done == 0).all()


def test_same_generator_same_batch() -> None:
    buffer = make([30, 40])
    one, two = (buffer.sample(64, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.obs, two.obs) and torch.equal(one.policy_goal, two.policy_goal)


def test_impossible_data_is_refused() -> None:
    with pytest.raises(UserError, match="2 steps"):
        make([2, 30])
    with pytest.raises(UserError, match="one episode"):
        make([30], value=GoalShares(0.0, 0.5, 0.5, False))
