"""Frames of the pushing tables. Rendering without a GPU is slow: small and few."""

import numpy as np
import pytest

from envs.rendering import rendering_problem
from tests.helpers.pushing_worlds import make_env, make_world, put


@pytest.fixture(autouse=True)
def skip_without_opengl():
    """Skip on machines that cannot render."""
    if problem := rendering_problem():
        pytest.skip(problem)


def where(frame: np.ndarray, channel: int) -> np.ndarray:
    """Pixels (row, column) in which one colour is much stronger than both others."""
    others = np.delete(frame.astype(int), channel, axis=-1).max(-1)
    return np.argwhere(frame[..., channel] > others + 60)


def test_two_views_frames_and_subgoals():
    env = make_world(multiview=True).make(pixels=True).unwrapped
    observation, info = env.reset(seed=0, options={"render_goal": True})
    assert env.observation_space.contains(observation) and observation.shape == (2, 32, 32, 3)
    assert info["goal"].shape == (2, 32, 32, 3) and (info["goal"] != observation).any()
    np.testing.assert_array_equal(info["goal_rendered"], info["goal"])
    frame, before = env.frame(), info["qpos"]
    np.testing.assert_array_equal(frame, np.concatenate(list(observation), axis=1))
    assert (env.subgoal_frame(info["state_goal"]) != frame).any()
    np.testing.assert_array_equal(env.frame(), frame)  # the ghosts are gone
    np.testing.assert_array_equal(env.table.qpos, before)


def test_cameras_look_as_the_reference_s_do():
    """Front: right is +y and down is +x; side: right is +x. All starts are seen."""
    env = make_world(multiview=True, width=128, height=128).make().unwrapped
    env.reset(seed=0)

    def seen(x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
        put(env, [(x, y, 0)])
        front, side = (where(view, 0).mean(axis=0) for view in env._frames())
        return front, side

    near, far = seen(0.15, 0.2), seen(-0.15, -0.2)
    assert near[0][0] > far[0][0] + 30 and near[0][1] > far[0][1] + 50
    assert near[1][0] < far[1][0] - 30 and near[1][1] > far[1][1] + 30
    for x, y in ((0.15, -0.2), (-0.15, 0.2), (0.15, 0.2), (-0.15, -0.2)):
        for place in seen(x, y):
            assert (place > 4).all() and (place < 124).all()


def test_the_picture_of_a_goal_shows_as_many_objects_as_the_goal_has():
    blocks, sort = (
        make_world(mode=mode, num_objects=number, width=128, height=128).make().unwrapped
        for mode, number in (("push_t", 2), ("sort_push", None))
    )
    goal = blocks.reset(seed=1, options={"render_goal": True})[1]["goal_rendered"]
    assert len(where(blocks.frame(), 0)) > 1.5 * len(where(goal, 0)) > 0
    goal = sort.reset(seed=1, options={"render_goal": True})[1]["goal_rendered"]
    for channel in range(3):
        extent = np.ptp(where(goal, channel), axis=0)
        assert 0 < extent.max() < 14  # one cube of each colour
        assert np.ptp(where(sort.frame(), channel), axis=0).max() > 14


def test_environments_keep_their_colours_apart():
    first, second = (make_env(mode="num_cubes", num_objects=1) for _ in range(2))
    before = first.frame()
    second._colors = np.ones((1, 4))
    assert (second.frame() != before).any()
    np.testing.assert_array_equal(first.frame(), before)


def test_drawing_changes_nothing():
    """A filmed episode is, to the last bit, the one that is not filmed."""
    ends = []
    for filmed in (False, True):
        env = make_env(mode="push_t", num_objects=2)
        put(env, [(0.0, 0.03, 0), (0.1, -0.2, 0)], pusher_x=-0.1)
        for x in (1.0, -0.5, 1.0, 0.5):
            env.step(np.array([x, 0.1, 0], np.float32))
            if filmed:
                env.frame()
        ends.append(env.table.qpos)
    assert ends[0][6] != 0
    np.testing.assert_array_equal(*ends)


def test_a_stored_row_is_drawn_again():
    world = make_world()
    env = world.make().unwrapped
    env.reset(seed=0)
    info = env.step(np.ones(3, np.float32))[4]
    frame = env.frame()
    env.step(np.ones(3, np.float32))
    again = world.replay(env, {"qpos": info["qpos"].astype(np.float32)})
    assert abs(again.astype(int) - frame).mean() < 0.5
