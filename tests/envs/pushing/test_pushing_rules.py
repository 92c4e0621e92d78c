"""Starts, goals, rewards and success of the pushing tables, against the reference's own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from common.foundation.errors import UserError
from common.settings.config import compose
from envs.pushing import modes, rules
from tests.helpers.pushing_worlds import make_world

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "pushing.npz")
VECTORS = {  # of rewards
    "cubes1": ("n_cubes", 1),
    "cubes3": ("n_cubes", 3),
    "small3": ("small_table", 3),
    "push_t1": ("push_t", 1),
    "push_t2": ("push_t", 2),
}
FLOORS = {
    "cubes1": ("n_cubes", 1),
    "cubes2": ("n_cubes", 2),
    "cubes3": ("num_cubes", 3),
    "adjacent3": ("adjacent_goals", 3),
    "ordered2": ("ordered_push", 2),
    "small3": ("small_table", 3),
    "push_t1": ("push_t", 1),
    "push_t2": ("push_t", 2),
}
DRAWS = 1500


def law_of(mode: str, number: int | None = None, **changes) -> modes.NCubes:
    return make_world(mode=mode, num_objects=number, **changes).law


def states(rows: np.ndarray) -> dict[str, torch.Tensor]:
    """Objects' rows (B, N, R) as columns, with a pusher somewhere."""
    rows = torch.from_numpy(rows)
    pusher = torch.full_like(rows[:, :1], 0.2)
    return {"state_observations": torch.cat([pusher, rows], dim=1).flatten(1)}


# Against the reference.


@pytest.mark.parametrize("name", VECTORS)
def test_rewards_and_figures_are_the_reference_s(name):
    mode, number = VECTORS[name]
    world = make_world(mode=mode, num_objects=number)
    vectors = {key.rsplit("/")[-1]: GOLDEN[key] for key in GOLDEN if f"/{name}/" in key}
    position = vectors["position"]
    goal = np.broadcast_to(vectors["goal"], position.shape)
    close = {"rtol": 0, "atol": 1e-12}
    reward = world.reward(states(position), states(goal.copy()))
    np.testing.assert_allclose(reward, vectors["reward"], **close)
    error = rules.errors(position, goal)
    np.testing.assert_allclose(error.mean(1), vectors["mean_distance"], **close)
    np.testing.assert_allclose(error.max(1), vectors["max_distance"], **close)
    reached = (error < world.law.within).mean(1)
    np.testing.assert_allclose(reached, vectors["success_fraction"], **close)


def test_the_mean_is_over_the_objects_that_there_are():
    counts = GOLDEN["reward/varying/count"]
    assert set(counts) == {1, 2, 3}
    for count, expected, position, goal in zip(
        counts,
        *(GOLDEN[f"reward/varying/{key}"] for key in ("reward", "position", "goal")),
        strict=True,
    ):
        present = [states(each[None, :count]) for each in (position, goal)]
        reward = make_world(num_objects=int(count)).reward(*present)
        assert reward.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", FLOORS)
def test_doing_nothing_has_the_reference_s_figures(name):
    """Success, fraction, largest and mean distance, reward: within 4 standard errors."""
    law = law_of(*FLOORS[name])
    rng = np.random.default_rng(0)
    width = law.scene.row_dim
    goals, starts = (
        np.array([draw(rng)[:, :width] for _ in range(DRAWS)])
        for draw in (law.draw_goal, law.draw_start)
    )
    error = rules.errors(starts, goals)
    reached = error < law.within
    figures = np.stack(
        [
            *(reached.all(1), reached.mean(1), error.max(1), error.mean(1)),
            rules.reward(error, law.scene.scale),
        ]
    )
    floor = GOLDEN[f"floor/{name}"]
    share = floor.clip(0, 1) * [1, 1, 0, 0, 0]  # of events too rare to be seen here
    spread = np.maximum(figures.std(axis=1), np.sqrt(share * (1 - share))) / np.sqrt(DRAWS)
    assert (abs(figures.mean(axis=1) - floor) <= 4 * spread + 1e-4).all()


# Tasks.


@pytest.mark.parametrize("mode", modes.MODES)
def test_the_largest_number_of_objects_fits(mode):
    law = law_of(mode, law_of(mode).most())
    rng = np.random.default_rng(0)
    for _ in range(20):
        for poses in (law.draw_start(rng), law.draw_goal(rng)):
            assert poses.shape == (law.num_objects, 3)
        xy = law.draw_start(rng)[:, :2]
        apart = np.linalg.norm(xy[:, None] - xy, axis=-1) + np.eye(len(xy))
        assert apart.min() >= rules.CUBE


def test_starts_keep_clear_of_the_pusher_and_each_other():
    law, rng = law_of("n_cubes", 6), np.random.default_rng(0)
    starts = np.array([law.draw_start(rng) for _ in range(200)])
    assert (abs(starts[..., :2]) <= (0.15, 0.20)).all() and (starts[..., 2] == 0).all()
    assert abs(starts[..., :2]).max(axis=(0, 1)) == pytest.approx((0.15, 0.20), abs=2e-3)
    assert np.linalg.norm(starts[..., :2] - (-0.002, 0), axis=-1).min() >= 0.0494
    blocks = law_of("push_t", 2)
    starts = np.array([blocks.draw_start(rng) for _ in range(200)])
    assert np.linalg.norm(starts[:, 0, :2] - starts[:, 1, :2], axis=-1).min() >= 0.148
    assert abs(starts[..., 2]).max() > 3


def test_goals_are_those_of_their_tasks():
    rng = np.random.default_rng(0)
    adjacent = law_of("adjacent_goals", 6).draw_goal(rng)[:, :2]
    steps = [(0, 0), (1, 0), (0, 1), (-1, 0), (0, -1), (1, 1)]
    np.testing.assert_allclose((adjacent - adjacent[0]) / 0.04, steps, atol=1e-9)
    ordered = np.array([law_of("ordered_push").draw_goal(rng)[:, 0] for _ in range(40)])
    assert {tuple(pair) for pair in ordered.round(4)} == {(0.2225, 0.135), (0.135, 0.2225)}
    blocks = law_of("push_t", 2).draw_goal(rng)
    assert (blocks[0] == blocks[1]).all() and blocks[0].all()
    spots = np.array([law_of("sort_push").draw_goal(rng)[:, :2] for _ in range(40)])
    assert (spots[:, :3] == spots[:, 3:6]).all()
    assert len({each[:3].tobytes() for each in spots}) == 3  # the order is kept, the start drawn
    assert {tuple(spot) for spot in spots[0].round(4)} == {
        (0.0925, 0.1425),
        (-0.0925, -0.1425),
        (0.0925, -0.1425),
    }


def test_no_start_overlaps_a_wall():
    law, rng = law_of("ordered_push"), np.random.default_rng(0)
    starts = np.concatenate([law.draw_start(rng) for _ in range(400)])
    beside = (abs(starts[:, 1]) > 0.0101) & (abs(starts[:, 1]) < 0.1249)
    assert starts[beside, 0].max() == pytest.approx(0.12 - rules.CUBE / 2)
    assert starts[~beside, 0].max() > 0.104


def test_colours_are_drawn_for_generalisation_alone():
    rng = np.random.default_rng(0)
    law = law_of("num_cubes")
    drawn = np.array([law.draw_colors(rng) for _ in range(60)])
    assert drawn.max() == 5 and len({tuple(row) for row in drawn}) > 30
    assert all(len(set(row)) == 3 for row in drawn)
    assert law_of("n_cubes", 4, num_colors=3).draw_colors(rng).tolist() == [0, 1, 2, 0]
    assert law_of("sort_push").draw_colors(rng).tolist() == [0, 1, 2] * 4
    assert law_of("push_t", 2).draw_colors(rng).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("mode", "number", "learning", "evaluation"),
    [
        ("n_cubes", 1, 30, 50),
        ("n_cubes", 2, 50, 100),
        ("num_cubes", 3, 100, 150),
        ("n_cubes", 6, 250, 300),
        ("ordered_push", 2, 50, 100),
        ("push_t", 1, 50, 50),
        ("push_t", 2, 100, 100),
        ("sort_push", 12, 200, 300),
    ],
)
def test_episodes_are_longer_in_evaluation(mode, number, learning, evaluation):
    section = "env_kwargs.pushing"
    settings = ["task=pushing-v0", f"{section}.mode={mode}", f"{section}.num_objects={number}"]
    assert compose(settings).max_episode_steps == evaluation
    assert make_world(mode=mode, num_objects=number).learning_steps == learning


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "num_cubes", "num_objects": 7}, "num_objects=7 .*=num_cubes; allowed: 1 to 6"),
        (
            {"mode": "num_cubes", "num_objects": 4, "num_colors": 3},
            "num_objects=4 is not possible in mode=num_cubes; allowed: 1 to 3",
        ),
        ({"mode": "small_table", "num_objects": 9}, "mode=small_table; allowed: 1 to 4"),
        ({"mode": "push_t", "num_objects": 9}, "mode=push_t; allowed: 1 to 4"),
        ({"mode": "ordered_push", "num_objects": 3}, "mode=ordered_push; allowed: 1 to 2"),
        ({"mode": "adjacent_goals", "num_objects": 7}, "mode=adjacent_goals; allowed: 1 to 6"),
        ({"mode": "sort_push", "num_colors": 4}, "num_colors=4 .*=sort_push; allowed: 1 to 3"),
        ({"mode": "push_t", "collector": "pusher"}, "collector=pusher is not possible"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(changes, message):
    with pytest.raises(UserError, match=message) as error:
        make_world(**changes)
    assert "\n" not in str(error.value)


def test_cubes_are_sorted_by_their_nearest_spot():
    spots = np.array([(0.0, 0.0), (1.0, 0.0)])
    cubes = np.array([(0.1, 0), (0.9, 0), (0.8, 0), (0.4, 0), (0.2, 0), (0.1, 0.1)])
    assert rules.sorted_fraction(cubes, spots) == pytest.approx(3 / 6)
