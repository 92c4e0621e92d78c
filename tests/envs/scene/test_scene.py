"""The scene's environment."""

import mujoco
import numpy as np
import pytest

from common.foundation.errors import UserError
from envs.make import make_env
from envs.rendering import rendering_problem, without_backend
from envs.scene import rules
from tests.helpers.scene_worlds import copy_scene, make_world, ogbench_scene
from tests.helpers.worlds import random_episode

with without_backend():
    from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle
    from ogbench.manipspace.oracles.markov.window_markov import WindowMarkovOracle

CENTER = np.array([0.425, 0.0, 0.0])


@pytest.fixture(scope="module")
def env():
    """A task environment with one cube, reset."""
    env = make_world().make().unwrapped
    env.reset(seed=0)
    return env


def aim_at_window(theirs, ours) -> None:
    theirs._target_task, theirs._target_window_pos = "window", 0.2
    theirs._model.site("window_handle_center_target").pos[0] = 0.2
    ours._job, ours._target = rules.Job("window", button=1), ours._target._replace(window=0.2)


def test_physics_and_observations_are_ogbench_s():
    """While a button is pressed and the window that it unlocks is opened."""
    theirs = ogbench_scene()
    theirs._target_task, theirs._target_button = "button", 1
    theirs._target_button_states = np.array([0, 1])
    ours = make_env("visual-scene-v0", mode="data_collection")
    ours.reset(seed=1)
    copy_scene(theirs, ours)
    ours._job = rules.Job("button", button=1)

    np.random.seed(0)
    info = theirs.compute_ob_info()
    for oracle in (ButtonMarkovOracle(env=theirs), WindowMarkovOracle(env=theirs)):
        oracle.reset(None, info)
        while not oracle.done:
            action = oracle.select_action(None, info)
            observation, *_ = theirs.step(action)
            result, *_, found = ours.step(action)
            info = theirs.compute_ob_info()
            np.testing.assert_array_equal(ours.data.qpos, theirs.data.qpos)
            np.testing.assert_allclose(result, observation, rtol=0, atol=1e-12)
            assert set(info) <= set(found)
            for key in set(info) - {"privileged/target_task"}:
                np.testing.assert_allclose(found[key], info[key], 0, 1e-12, err_msg=key)
            assert found["success"] == theirs._success
            assert found["privileged/target_task"] == theirs._target_task
        aim_at_window(theirs, ours)
        info = theirs.compute_ob_info()
    assert found["button_states"].tolist() == [1, 1]
    assert ours.data.joint("window_slide").qpos[0] > 0.19


def test_clean_state_part_by_part(env):
    state = random_episode(env, seed=5, steps=15)[-1]["state_obs"]
    data = env.data
    assert state.shape == (6 + 5 + 4 + 2,)
    np.testing.assert_allclose(state[6:9], (data.joint("object_joint_0").qpos[:3] - CENTER) * 10)
    assert state[11] == env._cur_button_states[0] and state[13] == env._cur_button_states[1]
    for column, joint, scale in (
        (12, "buttonbox_joint_0", 120),
        (14, "buttonbox_joint_1", 120),
        (15, "drawer_slide", 18),
        (16, "window_slide", 15),
    ):
        assert state[column] == pytest.approx(data.joint(joint).qpos[0] * scale)


@pytest.mark.parametrize(("task", "satisfied"), [(1, 0.6), (2, 0.6), (3, 0.2), (4, 0.6), (5, 0.4)])
def test_tasks_start_as_far_from_their_goal_as_the_reference_s(env, task, satisfied):
    _, info = env.reset(seed=task, options={"task_id": task})
    env._judge()
    assert env._success_frac == pytest.approx(satisfied)
    goal = info["state_goal"]
    expected = rules.TASKS[task].goal
    np.testing.assert_allclose(goal[6:9] / 10 + CENTER, expected.cubes[0], atol=2e-3)
    np.testing.assert_array_equal(goal[[11, 13]], expected.buttons)
    np.testing.assert_allclose(goal[15] / 18, expected.drawer, atol=2e-3)
    np.testing.assert_allclose(goal[16] / 15, expected.window, atol=2e-3)


def test_starts_are_beside_the_tasks_starts(env):
    task, offsets = rules.TASKS[2], []
    for seed in range(20):
        _, info = env.reset(seed=seed, options={"task_id": 2})
        cube = info["privileged/block_0_pos"]
        offsets.append(cube[:2] - task.start.cubes[0, :2])
        assert -0.16 <= info["privileged/drawer_pos"][0] <= -0.15
        assert 0.19 <= info["privileged/window_pos"][0] <= 0.2
        assert info["button_states"].tolist() == [0, 0]
        effector = info["proprio/effector_pos"]
        assert 0.249 < effector[0] < 0.401 and abs(effector[1]) < 0.201
    offsets = np.array(offsets)
    assert np.abs(offsets).max() <= 0.01 and offsets.std(axis=0).min() > 0.003


def test_all_tasks_are_drawn_from_the_environment_s_own_generator(env):
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    goals = [env.reset(seed=seed)[1]["state_goal"][[7, 11, 15, 16]] for seed in range(25)]
    assert len({goal.round(1).tobytes() for goal in goals}) == 5
    np.testing.assert_array_equal(before, np.random.get_state()[1])
    with pytest.raises(UserError, match="task_id=6 is not known; allowed: 1, 2, 3, 4, 5"):
        env.reset(options={"task_id": 6})


def place(env, **changes) -> None:
    """Put everything where the goal has it, but for `changes`."""
    things = env._target._replace(**changes)
    env._place_objects(things, np.zeros(env.num_cubes))
    env._apply_button_states()


def test_each_thing_counts_for_success(env):
    env.reset(seed=0, options={"task_id": 3})
    goal = env._target
    place(env)
    assert env._judge() == 0 and env._success
    for changes in (
        {"cubes": goal.cubes + np.array([0.05, 0, 0])},
        {"buttons": 1 - goal.buttons},
        {"drawer": goal.drawer + 0.05},
        {"window": goal.window + 0.05},
    ):
        place(env, **changes)
        assert env._judge() == -1 and not env._success
        missing = 2 if "buttons" in changes else 1
        assert env._success_frac == pytest.approx(1 - missing / 5)
    place(env, cubes=goal.cubes + np.array([0.02, 0.03, 0]), drawer=goal.drawer + 0.039)
    assert env._judge() == 0
    env.reward_mode = "step"
    place(env, drawer=goal.drawer + 0.05)
    assert env._judge() == pytest.approx(-0.2)
    env.reward_mode = "sparse"


def test_locked_drawers_stay_and_unlocked_ones_move(env):
    moved = []
    for button in (0, 1):
        env.reset(seed=0, options={"task_id": 1})
        place(env, buttons=np.array([button, 1]), drawer=-0.08)
        env.data.qvel[env._slide_dofs[0]] = -0.5
        env.step(np.zeros(5))
        moved.append(abs(env.data.qpos[env._slide_qpos[0]] + 0.08))
    assert moved[0] < 1e-4 < 5e-3 < moved[1]


def test_interaction_means_that_something_other_than_the_arm_moved(env):
    env.reset(seed=0, options={"task_id": 1})
    env.step(np.zeros(5))
    assert not env.step(np.zeros(5))[4]["was_agent_object_interaction"]
    env.data.qvel[env._slide_dofs[1]] = 0.5
    assert env.step(np.zeros(5))[4]["was_agent_object_interaction"]
    env.step(np.zeros(5))
    env.data.qvel[env._cube_dofs[0, 2]] = 1.0
    assert env.step(np.zeros(5))[4]["was_agent_object_interaction"]


def test_a_lost_cube_comes_back_in_tasks_only(env, capsys):
    collecting = make_world(mode="data_collection").make().unwrapped
    for each, back in ((env, True), (collecting, False)):
        each.reset(seed=0)
        each._place_cubes(np.array([[0.4, 0.7, 0.3]]), np.zeros(1))
        each.data.qvel[each._cube_dofs] = 1.0
        info = each.step(np.zeros(5))[4]
        x, y, z = info["privileged/block_0_pos"]
        inside = 0.3 <= x <= 0.45 and -0.07 <= y <= 0.18 and abs(z - 0.02) < 1e-3
        assert inside == back
        assert (np.abs(each.data.qvel[each._cube_dofs]).max() == 0) == back
    assert capsys.readouterr().out.count("warning: a cube was thrown out") == 1


def test_two_cubes_are_side_by_side_in_qpos_and_exchange_their_places():
    env = make_world(num_cubes=2).make().unwrapped
    firsts = set()
    for seed in range(8):
        _, info = env.reset(seed=seed, options={"task_id": 3})
        np.testing.assert_array_equal(info["qpos"][21:24], info["privileged/block_1_pos"])
        cubes = info["qpos"][[14, 21]]
        assert sorted(cubes.round(1)) == [0.3, 0.4]
        firsts.add(cubes.round(1)[0])
    assert firsts == {0.3, 0.4}
    assert env.observation_space.shape == info["state_goal"].shape == (22,)
    masses = [env.model.body(f"object_{i}").mass[0] for i in range(2)]
    np.testing.assert_allclose(masses, 0.0794, atol=1e-4)


def test_frames_are_ogbench_s_and_show_subgoals():
    if problem := rendering_problem():
        pytest.skip(problem)
    size = {"width": 64, "height": 64}
    theirs = ogbench_scene(**size)
    ours = make_world(mode="data_collection", multiview=True, **size).make(pixels=True).unwrapped
    ours.reset(seed=1)
    copy_scene(theirs, ours)
    theirs.model.geom_rgba[theirs._cube_geom_ids_list[0]] = rules.CUBE_COLORS[0]
    theirs.model.geom_rgba[theirs._cube_target_geom_ids_list, 3] = 0
    observation = ours.compute_observation()
    assert observation.shape == (2, 64, 64, 3)
    np.testing.assert_array_equal(observation[0], theirs.render(camera="front_pixels"))
    other = make_world(**size).make().unwrapped
    other.reset(seed=0, options={"task_id": 1})  # other lamps, in the same model
    np.testing.assert_array_equal(ours.frame(), np.concatenate(list(observation), axis=1))
    ours.cameras = ours.cameras[:1]
    pictures = [ours.subgoal_frame(ours._state)]
    for column, change in ((6, 1.0), (11, -1.0), (15, 1.0), (16, -1.0)):
        subgoal = ours._state.copy()  # with another cube, button, drawer, window
        subgoal[column] += change
        pictures.append(ours.subgoal_frame(subgoal))
    assert len({picture.tobytes() for picture in pictures}) == 5
    np.testing.assert_array_equal(ours.frame(), observation[0])  # the ghosts are gone
    ours.close()
    theirs.close()


def test_handles_and_tops_are_where_the_rules_have_them(env):
    env.reset(seed=0, options={"task_id": 2})
    drawer, window = env.data.qpos[env._slide_qpos]
    mujoco.mj_forward(env.model, env.data)
    sites = env.data.site_xpos
    shifts = ((0, -drawer, 0), (window, 0, 0))
    closed = (rules.DRAWER_HANDLE, rules.WINDOW_HANDLE)
    for site, handle, shift in zip(env._handle_sites, closed, shifts, strict=True):
        np.testing.assert_allclose(sites[site], handle + shift, atol=1e-3)
    np.testing.assert_allclose(sites[env._button_site_ids], rules.BUTTON_TOPS, atol=1e-3)
