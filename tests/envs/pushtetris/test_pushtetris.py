"""The Push-Tetris environment: simulation, episodes, success."""

import numpy as np
import pytest

from envs.pushtetris import rules
from envs.pushtetris.palette import INDICES, PALETTE
from envs.pushtetris.physics import Plane
from tests.helpers.pushtetris_worlds import make_env, put
from tests.helpers.worlds import random_episode

TABLE = {  # moment about the origin and centre of gravity, measured on the reference
    "O": (600, (0, 0)),
    "I": (1275, (0, 0)),
    "S": (2100, (-15, 0)),
    "Z": (2100, (15, 0)),
    "L": (3000, (-22.5, 7.5)),
    "J": (3000, (22.5, 7.5)),
    "T": (3150, (0, 30)),
}
RIGHT, NOTHING = np.array([1.0, 0.0]), np.zeros(2)


# Simulation.


def plane(*poses: tuple[float, float, float], names: str = "") -> Plane:
    empty = Plane([rules.PIECES[name] for name in names])
    empty.place(np.array(poses))
    return empty


def test_pieces_weigh_what_the_reference_s_do():
    assert rules.PIECES.keys() == TABLE.keys()
    for name, (moment, center) in TABLE.items():
        assert rules.PIECES[name].moment == moment
        np.testing.assert_array_equal(rules.PIECES[name].center_of_gravity, center)


def test_the_agent_answers_as_the_reference_s():
    space = plane((100, 100, 0))
    space.move(RIGHT)
    (after,) = space.poses
    np.testing.assert_allclose(after[:2] - 100, [29.57, 0], atol=0.005)
    np.testing.assert_allclose(space.agent_velocity, [374, 0], atol=0.5)
    space.move(NOTHING)
    np.testing.assert_allclose(space.poses[0, :2] - after[:2], [11.2, 0], atol=0.05)


def test_the_agent_goes_through_walls_but_not_out_of_the_plane():
    space = plane((480, 256, 0))
    for _ in range(20):
        space.move(RIGHT)
    assert 511 < space.poses[0, 0] <= 512


def test_placed_bodies_are_where_they_were_put():
    poses = np.array([[128, 128, 0], [384, 256, 1.0], [256, 384, 5.0], [128, 384, -2.0]])
    space = plane(*poses, names="TLS")
    np.testing.assert_allclose(space.poses, poses, atol=1e-9)
    np.testing.assert_array_equal(space.agent_velocity, 0)


def test_pieces_move_only_while_pushed():
    space = plane((200, 256, 0), (300, 256, 0.0), names="O")
    seen = [space.poses[1, 0]]
    for action in [RIGHT] * 4 + [-RIGHT] * 4:
        space.move(action)
        seen.append(space.poses[1, 0])
    assert seen[1] == 300 and seen[4] > 330  # the agent touches it from 255 on
    assert seen[6] == seen[8] > 340
    assert space.poses[1, 1] == pytest.approx(256)


# Episodes.


def test_state_dimension_by_dimension():
    env = make_env()
    infos = random_episode(env, seed=1, steps=20)
    state = infos[-1]["state_obs"]
    assert state.shape == (44,) and state.dtype == np.float32
    rows = state.reshape(4, 11)
    poses = env._plane.poses
    np.testing.assert_allclose(rows[:, :3], poses, rtol=1e-6)
    np.testing.assert_allclose(infos[-1]["pos_agent"], poses[0, :2])
    np.testing.assert_allclose(infos[-1]["block_pose"], poses[1:])
    kinds = [0, *(infos[-1]["obj_type_idxs"] + 1)]
    np.testing.assert_array_equal(rows[:, 3:], np.eye(8)[kinds])


@pytest.mark.parametrize("num_objects", [1, 3, 7])
def test_starts_and_goals_lie_on_the_grid(num_objects):
    """Starts less than 0.2 beside it if pieces overlapped at the goal, as in the reference."""
    env = make_env(num_objects=num_objects)
    for seed in range(10):
        info = env.reset(seed=seed)[1]
        states = [info[key].reshape(num_objects + 1, 11) for key in ("state_obs", "state_goal")]
        for rows, beside in zip(states, (0.2 * (num_objects == 7), 0), strict=True):
            cells = 128 * (rows[:, :2] / 128).round()
            assert abs(rows[:, :2] - cells).max() <= beside
            assert np.isin(cells, [128, 256, 384]).all()
            assert len(np.unique(cells, axis=0)) == num_objects + 1
            assert rows[0, 2] == 0
            assert (rows[1:, 2] >= 0).all() and (rows[1:, 2] < 2 * np.pi).all()
            assert len(np.unique(rows[:, 3:], axis=0)) == num_objects + 1
        np.testing.assert_array_equal(states[0][:, 3:], states[1][:, 3:])


def test_every_cell_and_piece_is_drawn_alike():
    env = make_env(num_objects=1)
    rows = np.array([env.reset(seed=seed)[1]["state_obs"].reshape(2, 11) for seed in range(700)])
    kinds = rows[:, 1, 4:].sum(axis=0)
    assert (abs(kinds - 100) < 40).all()
    for body in (0, 1):
        cells, counts = np.unique(rows[:, body, :2], axis=0, return_counts=True)
        assert len(cells) == 9 and (abs(counts - 700 / 9) < 36).all()


def test_pixels_show_what_the_masks_say():
    env = make_env(pixels=True)
    frame, info = env.reset(seed=2)
    frame, *_, info = env.step(RIGHT)
    assert frame.shape == (128, 128, 3) and env.observation_space.contains(frame)
    assert info["image_bitmasks"].shape == (3, 2048)
    for bits, kind in zip(info["image_bitmasks"], info["obj_type_idxs"], strict=True):
        color = rules.PIECES[env.object_list[kind]].color
        shown = (frame == color).all(axis=-1)
        assert shown.sum() > 200
        np.testing.assert_array_equal(np.packbits(shown.ravel()), bits)


def test_a_shorter_object_list_keeps_the_colours():
    env = make_env(object_list=("L", "J", "T"))
    info = env.reset(seed=0)[1]
    assert info["state_obs"].shape == (4 * 7,)
    assert (np.bitwise_count(info["image_bitmasks"]).sum(axis=1) > 200).all()
    frame, expected = env.frame(), {INDICES[name] for name in "LJT"}
    shown = {i for i in range(1, 8) if (frame == PALETTE[i]).all(axis=-1).any()}
    assert shown == expected


def test_nothing_is_drawn_or_compared_that_nobody_asked_for(monkeypatch):
    def forbidden(*_):
        raise AssertionError("nobody asked for it")

    env = make_env()
    monkeypatch.setattr(env, "frame", forbidden)
    assert env.reset(seed=0)[1]["goal_rendered"] is None
    env.step(RIGHT)
    monkeypatch.setattr(rules, "chamfer", forbidden)
    collecting = make_env(mode="data_collection")
    assert "goal" not in random_episode(collecting, seed=0, steps=3)[0]


def test_goal_and_frames():
    env = make_env()
    info = env.reset(seed=0, options={"render_goal": True})[1]
    np.testing.assert_array_equal(info["goal"], info["state_goal"])
    frame = env.frame()
    assert (info["goal_rendered"] != frame).any()
    assert env.render().shape == frame.shape == (128, 128, 3)
    with_subgoal = env.subgoal_frame(info["state_goal"])
    assert 100 < (with_subgoal != frame).any(axis=-1).sum() < 500
    np.testing.assert_array_equal(env.frame(), frame)


def test_a_generated_subgoal_says_itself_which_bodies_it_has():
    """Rows in any order, noisy one-hots, a body twice or missing: all can be drawn."""
    env = make_env()
    rows = env.reset(seed=0)[1]["state_goal"].reshape(4, 11)
    rng = np.random.default_rng(0)
    noisy = rows + np.pad(rng.uniform(-0.2, 0.2, (4, 8)), ((0, 0), (3, 0)))
    expected = env.subgoal_frame(rows.ravel())
    np.testing.assert_array_equal(env.subgoal_frame(noisy[[2, 0, 3, 1]].ravel()), expected)
    assert env.subgoal_frame(rows[[0, 0, 1, 1]].ravel()).shape == (128, 128, 3)
    assert env.subgoal_frame(rows[[1, 1, 2, 3]].ravel()).shape == (128, 128, 3)
    assert env.subgoal_frame(rows[[0, 0, 0, 0]].ravel()).shape == (128, 128, 3)


def test_targets_are_shown_if_wanted():
    grey = (119, 136, 153)
    shown = []
    for mode in rules.MODES:
        env = make_env(mode=mode, visualize_target=True)
        env.reset(seed=1)
        shown.append((env.frame() == grey).all(axis=-1).sum())
    assert shown[0] > 400 > shown[1] > 100  # three targets, and that of one piece


# Success.


def brute_force_chamfer(a: np.ndarray, b: np.ndarray) -> float:
    p, q = np.argwhere(a), np.argwhere(b)
    there = [min(np.hypot(*(x - y)) for y in q) for x in p]
    back = [min(np.hypot(*(x - y)) for x in p) for y in q]
    return (np.mean(there) + np.mean(back)) / 2


def test_chamfer_is_the_mean_distance_to_the_nearest_pixel():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(size=(2, 20, 20)) < 0.1
    assert rules.chamfer(a, b) == pytest.approx(brute_force_chamfer(a, b))
    assert rules.chamfer(a, a) == 0
    assert rules.chamfer(a, np.zeros_like(a)) == pytest.approx(np.hypot(20, 20))


@pytest.mark.parametrize("seed", [0, 5])
def test_figures_of_a_step_follow_their_definitions(seed):
    env = make_env(reward_mode="dense")
    env.reset(seed=seed)
    goal_frame = PALETTE[env._painter.scene(env._shapes, goal_poses(env))]
    colors = [rules.PIECES[name].color for name in env._names]
    best, nearest = 0.0, np.inf
    for action in np.random.default_rng(seed).uniform(-1, 1, (25, 2)):
        _, reward, terminated, truncated, info = env.step(action)
        masks = [((f == c).all(-1)) for c in colors for f in (env.frame(), goal_frame)]
        pairs = list(zip(masks[::2], masks[1::2], strict=True))
        covered = np.mean([(now & goal).sum() / goal.sum() for now, goal in pairs])
        apart = np.mean([rules.chamfer(now, goal) for now, goal in pairs]) / 41
        best, nearest = max(best, covered), min(nearest, apart)
        figures = ("final_coverage", "max_coverage", "final_chamfer", "min_chamfer")
        expected = (covered, best, apart, nearest)
        assert [info[name] for name in figures] == pytest.approx(expected)
        assert reward == pytest.approx(covered - 1)
        assert not terminated and not truncated


def goal_poses(env, agent: tuple[float, float] = (20, 20)) -> np.ndarray:
    """The goal poses of the pieces, with the agent out of the way."""
    return np.concatenate([[(*agent, 0.0)], env._goal_poses])


@pytest.mark.parametrize(("away", "placed"), [((), 3), ((1,), 2), ((0, 1, 2), 0)])
def test_success_and_rewards(away, placed):
    env = make_env()
    env.reset(seed=6)
    poses = goal_poses(env)
    for piece in away:
        poses[1 + piece, 0] += 40
    rewards = {}
    for env.reward_mode in rules.REWARD_MODES:
        put(env, poses)
        _, rewards[env.reward_mode], *_, info = env.step(NOTHING)
    assert info["success"] == (placed == 3)
    assert info["success_frac"] == pytest.approx(placed / 3)
    assert rewards["sparse"] == (0 if placed == 3 else -1)
    assert rewards["step"] == pytest.approx(placed / 3 - 1)
    assert rewards["dense"] == pytest.approx(info["final_coverage"] - 1)
    if placed == 3:
        assert rewards["dense"] > -0.02 and info["min_chamfer"] < 0.01


def test_the_threshold_of_coverage_is_inclusive():
    assert rules.reward(np.array([0.85, 1.0]), "sparse") == 0
    assert rules.reward(np.array([0.8499, 1.0]), "sparse") == -1


def test_starts_are_as_far_from_goals_as_the_reference_s():
    env = make_env()
    figures = []
    for seed in range(40):
        env.reset(seed=seed)
        info = env.step(NOTHING)[4]
        figures.append((info["success"], info["final_coverage"], info["final_chamfer"]))
    success, coverage, chamfer = np.mean(figures, axis=0)
    assert success == 0
    assert 0.03 < coverage < 0.08
    assert 0.8 < chamfer < 1.0


def test_interaction_is_a_move_of_three_units():
    before = np.zeros((2, 3))
    after = before.copy()
    after[1] = 1.5, -1.49, 9.0
    assert not rules.moved(before, after)
    after[1, 1] = -1.51
    assert rules.moved(before, after)
