"""The cube environment and its world."""

import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest
import torch

from envs.make import make_env
from envs.manipobj import rules
from envs.tabletop import table
from tests.helpers.manipobj_worlds import make_world
from tests.helpers.ogbench_cubes import copy_state, ogbench_env
from tests.helpers.worlds import random_episode

CENTER = np.array([0.425, 0.0, 0.0])


@pytest.fixture(scope="module")
def env():
    """A task environment with three cubes, reset."""
    env = make_world().make().unwrapped
    env.reset(seed=0)
    return env


def test_physics_and_observations_are_ogbench_s():
    ours = make_env("manipobj-v0", mode="data_collection", num_cubes=3)
    ours.reset(seed=1)
    theirs = ogbench_env("data_collection")
    copy_state(theirs, ours)
    ours._target_block = theirs._target_block

    rng = np.random.default_rng(0)
    for _ in range(60):
        action = rng.uniform(-1, 1, 5)
        observation, *_, info = ours.step(action)
        expected_observation, *_, expected = theirs.step(action)
        np.testing.assert_array_equal(ours.data.qpos, theirs.data.qpos)
        np.testing.assert_allclose(observation, expected_observation, rtol=0, atol=1e-12)
        assert set(expected) <= set(info)
        for key in set(expected) - {"privileged/target_task", "success"}:
            np.testing.assert_allclose(info[key], expected[key], rtol=0, atol=1e-12, err_msg=key)
        assert info["success"] == expected["success"]


def test_cubes_are_heavy(env):
    masses = [env.model.body(f"object_{i}").mass[0] for i in range(3)]
    np.testing.assert_allclose(masses, 0.512)


def test_clean_state_dimension_by_dimension(env):
    infos = random_episode(env, seed=5, steps=15)
    state, data = infos[-1]["state_obs"], env.data
    assert state.shape == (6 + 5 * 3,)

    def yaw(matrix: np.ndarray) -> float:
        return np.arctan2(matrix[1, 0], matrix[0, 0])

    effector = data.site("ur5e/robotiq/pinch")
    effector_yaw = yaw(effector.xmat.reshape(3, 3))
    opening = np.clip(data.joint("ur5e/robotiq/right_driver_joint").qpos[0] / 0.8, 0, 1)
    expected = [*((effector.xpos - CENTER) * 10), np.cos(effector_yaw), np.sin(effector_yaw)]
    expected.append(opening * 3)
    for i in range(3):
        pose = data.joint(f"object_joint_{i}").qpos
        matrix = np.empty(9)
        mujoco.mju_quat2Mat(matrix, pose[3:])
        cube_yaw = yaw(matrix.reshape(3, 3))
        expected += [*((pose[:3] - CENTER) * 10), np.cos(cube_yaw), np.sin(cube_yaw)]
    np.testing.assert_allclose(state, expected, atol=1e-9)
    assert opening > 0  # the random actions moved the gripper


def test_colours_come_from_the_seed(env):
    palettes = []
    for seed in (*range(8), *range(8)):
        env.reset(seed=seed)
        assert len(np.unique(env._cube_colors, axis=0)) == 3
        palettes.append(env._cube_colors.tobytes())
    assert palettes[:8] == palettes[8:] and len(set(palettes)) > 1


def test_goals_are_uniform_in_their_box():
    rng = np.random.default_rng(0)
    positions = np.array([rules.scattered(rng, 1)[0][0] for _ in range(2000)])
    np.testing.assert_allclose(positions[:, :2].mean(0), [0.425, 0.0], atol=0.012)
    np.testing.assert_allclose(positions[:, :2].std(0), np.array([0.25, 0.6]) / 12**0.5, rtol=0.05)


def put_cubes(env, offsets: list[float]) -> None:
    """Put each cube `offset` metres in x beside its target."""
    targets = env.data.mocap_pos[env._mocap_ids]
    xyz = targets + np.array([[offset, 0.0, 0.0] for offset in offsets])
    env._place_cubes(xyz, np.zeros(len(offsets)))
    env.data.qvel[:] = 0
    mujoco.mj_forward(env.model, env.data)


@pytest.mark.parametrize(
    ("offsets", "placed"), [([0.0, 0.03, -0.038], 3), ([0.0, 0.045, 0.07], 1), ([0.06] * 3, 0)]
)
def test_success_and_rewards(env, offsets, placed):
    env.reset(seed=2)
    put_cubes(env, offsets)
    rewards = {}
    for env.reward_mode in ("sparse", "step", "dense"):
        _, rewards[env.reward_mode], terminated, truncated, info = env.step(np.zeros(5))
        assert not terminated and not truncated
    assert info["success"] == (placed == 3)
    assert info["success_frac"] == pytest.approx(placed / 3)
    assert rewards["sparse"] == (0 if placed == 3 else -1)
    assert rewards["step"] == pytest.approx(-(3 - placed) / 3)
    assert rewards["dense"] == pytest.approx(-np.abs(offsets).mean(), abs=2e-3)
    env.reward_mode = "sparse"


def test_only_the_distance_in_space_decides_success():
    distance = table.distances(np.array([[0.3, 0.0, 0.0625]]), np.array([[0.3, 0.0, 0.02]]))
    assert rules.reward(distance, "sparse", 1.0) == -1
    assert rules.reward(np.array([0.04]), "sparse", 1.0) == 0  # inclusive


def test_termination_at_goal_is_optional():
    env = make_world(num_cubes=1, terminate_at_goal=True).make()
    env.reset(seed=0)
    assert not env.step(np.zeros(5))[2]
    put_cubes(env.unwrapped, [0.0])
    assert env.step(np.zeros(5))[2]


@pytest.mark.parametrize("reward_mode", rules.REWARD_MODES)
def test_batched_reward_equals_the_environment_s(reward_mode):
    world = make_world(reward_mode=reward_mode, reward_scale=2.5)
    env = world.make().unwrapped
    rng, rows, goals, expected = np.random.default_rng(0), [], [], []
    for seed in range(30):
        env.reset(seed=seed)
        put_cubes(env, rng.choice([0.0, 0.02, 0.06, 0.2], 3).tolist())
        goal = env.data.qpos.copy()
        goal[env._cube_qpos[:, :3]] = env.data.mocap_pos[env._mocap_ids]
        _, reward, *_, info = env.step(rng.uniform(-1, 1, 5))
        rows.append(info["qpos"])
        goals.append(goal)
        expected.append(reward)
    reward = world.reward(*({"qpos": torch.tensor(np.array(q)).float()} for q in (rows, goals)))
    assert reward.dtype == torch.float32
    np.testing.assert_allclose(reward, expected, atol=1e-5)
    assert len(set(np.round(expected, 3))) > 1


def test_interaction_means_that_a_cube_moved(env):
    info = random_episode(env, seed=0, steps=1)[-1]
    assert not info["was_agent_object_interaction"]  # the arm starts above, the cubes rest
    env.data.qvel[14 + 6 + 2] = 1.0  # second cube, upwards
    assert env.step(np.zeros(5))[4]["was_agent_object_interaction"]


@pytest.mark.parametrize(
    ("mode", "visualize_info", "shown"),
    [("task", False, 0), ("task", True, 3), ("data_collection", True, 1)],
)
def test_targets_are_shown_on_demand(mode, visualize_info, shown):
    env = make_world(mode=mode, visualize_info=visualize_info).make().unwrapped
    _, info = env.reset(seed=0)
    env._paint()
    alphas = env.model.geom_rgba[env._ghost_geoms[:, 0], 3]
    assert sorted(alphas) == pytest.approx([0.0] * (3 - shown) + [0.2] * shown)
    if shown == 1:
        assert alphas[info["privileged/target_block"]] > 0


def test_stepping_needs_no_opengl():
    """States work whatever MUJOCO_GL says; frames then name the package to install."""
    program = """
import sys
import numpy as np
from tests.helpers.manipobj_worlds import make_world
from tests.helpers.worlds import random_episode
world = make_world(num_cubes=1)
assert "mujoco" not in sys.modules
env = world.make()
random_episode(env, seed=0, steps=3)
assert env.unwrapped._renderer is None
assert not {"OpenGL", "torch"} & set(sys.modules)
from common.foundation.errors import UserError
try:
    env.unwrapped.frame()
except UserError as error:
    print(error)
"""
    environment = os.environ | {"MUJOCO_GL": "nonsense", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "apt-get install libegl1" in result.stdout and "MUJOCO_GL=nonsense" in result.stdout
    assert "\n" not in result.stdout.strip()


def test_data_of_another_number_of_cubes_do_not_fit():
    message = make_world(num_cubes=3).compatible(make_world(num_cubes=2).describe())
    assert "num_cubes=2" in message and "num_cubes=3" in message


def test_columns_and_layout_agree_with_the_environment(env):
    world = make_world()
    info = random_episode(env, seed=0, steps=1)[-1]
    for i in range(3):
        start, end = world.qpos_layout()[f"cube_{i}_xyz"]
        np.testing.assert_array_equal(info["qpos"][start:end], info[f"privileged/block_{i}_pos"])
