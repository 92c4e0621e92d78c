"""Frames of the cube environment. Rendering without a GPU is slow: small and few."""

import numpy as np
import pytest

from envs.make import make_env
from envs.rendering import rendering_problem
from tests.helpers.manipobj_worlds import make_world
from tests.helpers.ogbench_cubes import copy_state, ogbench_env


@pytest.fixture(autouse=True)
def skip_without_opengl():
    """Skip on machines that cannot render."""
    if problem := rendering_problem():
        pytest.skip(problem)


def test_frames_are_ogbench_s():
    """In every view, down to the last bit, for the same state and colours."""
    size = {"width": 128, "height": 128}
    theirs = ogbench_env("data_collection", **size)
    ours = make_env("manipobj-v0", num_cubes=3, render_mode="rgb_array", **size)
    ours.reset(seed=1)
    copy_state(theirs, ours)
    for ids, color in zip(theirs._cube_geom_ids_list, ours._cube_colors, strict=True):
        theirs.model.geom_rgba[ids] = color
    theirs.model.geom_rgba[theirs._cube_target_geom_ids_list, 3] = 0
    frames = ours.render(("front_pixels", "side_pixels", "side_pixels_stack"))
    for frame, camera in zip(frames, ("front_pixels", "side", "side_of_stacks"), strict=True):
        np.testing.assert_array_equal(frame, theirs.render(camera=camera), err_msg=camera)
    assert (frames[0] != frames[1]).any() and (frames[1] != frames[2]).any()
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
    assert envs[0]._renderer is envs[1]._renderer  # one OpenGL context in a process
    envs[1].close()
    np.testing.assert_array_equal(envs[0].frame(), before)
    envs[0].close()


def test_goals_are_drawn_in_the_shape_of_observations_whatever_is_observed():
    env = make_world(num_cubes=1).make().unwrapped
    _, info = env.reset(seed=0, options={"render_goal": True})
    assert info["goal_rendered"].shape == (32, 32, 3)
    env.close()


def test_qualities_of_one_model_keep_apart():
    """The fast one differs a little, and leaves frames of full quality as they were."""
    full, fast = (make_world(render_quality=q).make().unwrapped for q in ("full", "fast"))
    for env in (full, fast):
        env.reset(seed=0)
    before, other = full.frame().astype(int), fast.frame().astype(int)
    np.testing.assert_array_equal(full.frame(), before)
    assert 0 < np.abs(before - other).mean() < 5
    assert full._model is fast._model and full._model.vis.quality.shadowsize == 4096


def test_images_of_another_quality_do_not_fit():
    world, fast = make_world(), make_world(render_quality="fast")
    header = fast.describe() | {"pixels": True}
    assert fast.compatible(header) is None
    assert "env_kwargs.manipobj.render_quality=fast" in world.compatible(header)
    assert world.compatible(header | {"pixels": False}) is None
    assert world.compatible(world.describe() | {"pixels": True}) is None
