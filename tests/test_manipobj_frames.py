"""Frames of the cube environment. Rendering without a GPU is slow: small and few."""

import numpy as np
import pytest

from envs.manipobj_env import ManipObjEnv
from envs.rendering import rendering_problem
from tests.manipobj_worlds import make_world
from tests.ogbench_cubes import copy_state, ogbench_env


@pytest.fixture(autouse=True)
def skip_without_opengl():
    """Skip on machines that cannot render."""
    if problem := rendering_problem():
        pytest.skip(problem)


@pytest.mark.parametrize(("mode", "side"), [("task", "side"), ("task_stack_all", "side_of_stacks")])
def test_frames_are_ogbench_s(mode, side):
    """In both views, down to the last bit, for the same state and colours."""
    size = {"width": 128, "height": 128}
    theirs = ogbench_env("data_collection", **size)
    ours = ManipObjEnv(mode, "pixels", num_cubes=3, random_colors=True, multiview=True, **size)
    ours.reset(seed=1)
    copy_state(theirs, ours)
    observation = ours.compute_observation()
    for ids, color in zip(theirs._cube_geom_ids_list, ours._cube_colors, strict=True):
        theirs.model.geom_rgba[ids] = color
    theirs.model.geom_rgba[theirs._cube_target_geom_ids_list, 3] = 0
    expected = [theirs.render(camera=camera) for camera in ("front_pixels", side)]
    np.testing.assert_array_equal(observation, expected)
    assert (observation[0] != observation[1]).any()
    ours.close()
    theirs.close()


def test_two_views_frames_and_subgoals():
    env = make_world(multiview=True).make(pixels=True).unwrapped
    observation, info = env.reset(seed=0, options={"render_goal": True})
    assert observation.shape == (2, 32, 32, 3) and observation.dtype == np.uint8
    assert env.observation_space.contains(observation)
    assert info["goal"].shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(info["goal_rendered"], info["goal"])
    frame = env.frame()
    assert frame.shape == (32, 64, 3)
    np.testing.assert_array_equal(frame, np.concatenate(list(observation), axis=1))
    before = env.data.qpos.copy(), env.data.site_xpos.copy()
    assert (env.subgoal_frame(info["state_goal"]) != frame).any()
    np.testing.assert_array_equal(env.frame(), frame)  # the ghosts are gone
    np.testing.assert_array_equal(before[0], env.data.qpos)
    np.testing.assert_array_equal(before[1], env.data.site_xpos)
    env.close()


def test_environments_keep_their_colours_apart():
    envs = [make_world(num_cubes=1).make().unwrapped for _ in range(2)]
    for env in envs:
        env.reset(seed=0)
    before = envs[0].frame()
    envs[1]._cube_colors = np.array([[1.0, 1.0, 1.0, 1.0]])
    envs[1].frame()
    np.testing.assert_array_equal(envs[0].frame(), before)
    for env in envs:
        env.close()


@pytest.mark.parametrize("multiview", [False, True])
@pytest.mark.parametrize("render_goal", [False, True])
def test_goals_are_drawn_on_demand_in_the_shape_of_observations(multiview, render_goal):
    env = make_world(num_cubes=1, multiview=multiview).make().unwrapped
    _, info = env.reset(seed=0, options={"render_goal": render_goal})
    if render_goal:
        assert info["goal_rendered"].shape == ((2, 32, 32, 3) if multiview else (32, 32, 3))
    else:
        assert info["goal_rendered"] is None
    env.close()
