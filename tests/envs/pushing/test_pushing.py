"""Physics and episodes of the pushing tables."""

import dataclasses
import subprocess
import sys
from unittest import mock

import mujoco
import numpy as np
import pytest
import torch

from envs.pushing import physics, rules
from tests.helpers.point_world import COLLECT
from tests.helpers.pushing_worlds import make_env, make_world, put
from tests.helpers.worlds import random_episode

PUSH = np.array([1.0, 0, 0], np.float32)
STILL = np.zeros(3, np.float32)


def push(env, times: int, action: np.ndarray = PUSH) -> np.ndarray:
    """Repeat an action; return where the objects are, (N, 4)."""
    for _ in range(times):
        env.step(action)
    return env.table.objects


# Physics.


@pytest.mark.parametrize("axis", [0, 1])
def test_an_action_covers_nine_tenths_of_what_it_asks(axis):
    """As the critically damped spring does in 0.316 s: 1 - (1 + wt) exp(-wt), w = sqrt(150)."""
    env = make_env()
    put(env, [(0.1, 0.2, 0)], pusher_x=0.0)
    env.step(-np.eye(3)[axis])
    wt = np.sqrt(150) * 79 * 0.004
    expected = 0.125 * (1 - (1 + wt) * np.exp(-wt))
    assert -env.table.pusher[axis] == pytest.approx(expected, rel=0.01)


def test_the_pusher_stays_within_its_bounds():
    env = make_env()
    put(env, [(0.0, 0.2, 0)])
    for corner, wanted in (
        ([1, -1, 1], (0.2675, -0.3175, 0.035)),
        ([-1, -1, -1], (-0.2675, -0.3175)),
    ):
        for _ in range(8):
            env.step(np.array(corner, np.float32))
        found = env.table.pusher
        assert found[: len(wanted)] == pytest.approx(wanted, abs=2e-3)
    assert found[2] == pytest.approx(0.020, abs=2e-3)


def test_nothing_is_pushed_through():
    """Sixty actions at full speed through one of three cubes, looked at in every step."""
    scene, rng = rules.Scene(), np.random.default_rng(0)
    table = physics.Table(scene, 3, (64, 64), "full")
    table.place(rules.scattered(rng, scene, 3), scene.home)
    deepest = []

    def step(model, data, nstep):
        for _ in range(nstep):
            real(model, data)
            deepest.append(-data.contact.dist.min() if data.ncon else 0.0)

    real = mujoco.mj_step
    with mock.patch.object(mujoco, "mj_step", step):
        for _ in range(60):
            if (table.objects[:, 2] < physics.FALLEN).any():
                table.place(rules.scattered(rng, scene, 3), scene.home)
            way = table.objects[rng.integers(3), :2] - table.pusher[:2]
            table.move(np.array([*(way / abs(way).max()), rng.uniform(-1, 1)]))
    assert 0.0005 < max(deepest) < 0.0088  # half of the tip, beyond which a cube lets it through
    assert np.percentile(deepest, 99) < 0.003


def test_a_cube_falls_off_the_edge_and_is_seen_where_it_lies():
    env = make_env(mode="small_table", num_objects=1)
    before = 0.15
    put(env, [(0.10, 0.0, 0)], pusher_x=0.05)
    fallen = push(env, 5)
    assert fallen[0, 2] < -0.5 and fallen[0, 0] > before
    state, reward, *_, info = env.step(STILL)
    assert info["fallen"] == 1 and not info["success"]
    assert state[2] == pytest.approx(fallen[0, 0], abs=1e-3)
    assert reward < 0
    put(env, [(before - 0.001, 0.0, 0)])
    assert push(env, 3, STILL)[0, 2] > 0  # its middle has not yet left the table
    put(env, [(before + 0.008, 0.0, 0)])
    assert push(env, 3, STILL)[0, 2] < -0.5


def test_the_corridor_lets_a_cube_in_and_holds_the_pusher_and_others_out():
    env = make_env(mode="ordered_push", num_objects=1)
    put(env, [(0.05, 0.006, 0)], pusher_x=-0.02)
    x, y = push(env, 5)[0, :2]
    assert x == pytest.approx(0.2225, abs=2e-3) and abs(y) < 0.010
    put(env, [(0.05, 0.05, 0)], pusher_x=-0.1)
    for _ in range(3):
        env.step(np.array([0.0, 0.2, 0], np.float32))
    x, _, z = push(env, 8)[0, :3]
    assert x < 0.11 and z == pytest.approx(0.0175, abs=1e-3)


def test_a_push_beside_the_middle_turns_a_block_and_one_at_its_middle_does_not():
    env = make_env(mode="push_t")
    put(env, [(0.0, 0.0, 0)], pusher_x=-0.06)
    straight = push(env, 1)[0]
    assert straight[0] > 0.03 and abs(straight[3]) < 0.02
    put(env, [(0.0, 0.03, 0)], pusher_x=-0.06)
    turned = push(env, 1)[0]
    assert turned[3] > 0.2  # the pusher is on the right of the bar's middle: it turns to the left


def test_what_is_not_touched_does_not_move():
    env = make_env(mode="push_t", num_objects=2)
    put(env, [(0.1, 0.1, 2.0), (0.1, -0.1, -2.0)])
    moved = [env.step(PUSH * sign)[4]["was_agent_object_interaction"] for sign in (1, -1, -1)]
    assert moved == [False] * 3
    put(env, [(0.0, 0.0, 0), (0.1, -0.2, 0)], pusher_x=-0.1)
    assert env.step(PUSH)[4]["was_agent_object_interaction"]


# Episodes.


def test_rows_and_goals_of_the_state():
    env = make_env(mode="push_t", num_objects=2)
    put(env, [(0.1, 0.1, 3.0), (-0.1, -0.15, -3.0)])
    env.table._data.qpos[6] += 2 * np.pi  # a turn more is the same yaw
    env._look()
    expected = [(-0.2, 0, 0), (0.1, 0.1, 3.0), (-0.1, -0.15, -3.0)]
    np.testing.assert_allclose(env._state().reshape(3, 3), expected, atol=1e-6)
    info = make_env().reset(seed=3)[1]
    assert info["state_obs"][:2] == pytest.approx((-0.002, 0))
    assert info["state_goal"][:2] == pytest.approx((-0.232, 0))
    info = make_env(mode="small_table").reset(seed=3)[1]
    assert info["state_obs"][:2] == pytest.approx((0.098, 0))
    assert info["state_goal"][:2] == pytest.approx((-0.132, 0))
    info = make_env(mode="push_t", num_objects=2).reset(seed=3)[1]
    rows = info["state_goal"].reshape(3, 3)
    assert (rows[1] == rows[2]).all() and rows[1].all()


@pytest.mark.parametrize(
    ("mode", "number"), [("n_cubes", 3), ("small_table", 3), ("push_t", 2), ("sort_push", 12)]
)
def test_batched_reward_and_success_are_the_environment_s(mode, number):
    world = make_world(mode=mode, num_objects=number)
    env = world.make().unwrapped
    goal = env.reset(seed=1)[1]["state_goal"]
    assert goal.shape == (world.goal_dim,)
    rng, seen = np.random.default_rng(0), []
    for _ in range(12):
        seen.append(env.step(rng.uniform(-1, 1, 3).astype(np.float32)))
    rows = torch.from_numpy(np.stack([each[0] for each in seen]))
    goals = torch.from_numpy(goal).expand(12, -1)
    rewards = world.reward({"state_observations": rows}, {"state_observations": goals})
    assert rewards.dtype == torch.float32
    expected = torch.tensor([each[1] for each in seen])
    torch.testing.assert_close(rewards, expected, rtol=0, atol=1e-6)
    whole = world.reward({"state_observations": rows}, {"state_observations": rows})
    assert abs(whole).max() == 0  # states are goals, too, with all their objects


def test_success_is_of_the_last_step_alone():
    world = make_world(num_objects=2)
    env = world.make().unwrapped
    env.reset(seed=0)
    history, rewards = [], []
    for offset in (0.0, 0.039, 0.05):
        goals = np.column_stack((env.goal_rows, np.zeros(2)))
        put(env, [goals[0] + (offset, 0, 0), goals[1]])
        _, reward, *_, info = env.step(STILL)
        history.append(info)
        rewards.append(reward)
    assert [info["success"] for info in history] == [True, True, False]
    figures = world.summarise(history, rewards)
    assert figures["success"] == 0 and figures["success_frac"] == 0.5
    assert figures["max_distance"] == pytest.approx(0.05, abs=1e-5)
    assert figures["mean_distance"] == pytest.approx(0.025, abs=1e-5)
    expected = -(0.039 + 0.05) / np.hypot(0.25, 0.3) / 3  # of two cubes: -2 d / 2
    assert figures["mean_reward"] == pytest.approx(expected, abs=1e-4)
    assert tuple(figures) == world.metrics


def test_tasks_have_figures_of_their_own():
    blocks = make_world(mode="push_t", num_objects=2)
    info = random_episode(blocks.make(), seed=0, steps=1)
    figures = blocks.summarise(info[1:], [0.0])
    errors = figures["yaw_error_0"], figures["yaw_error_1"]
    assert figures["mean_distance"] == pytest.approx(np.mean(errors))
    assert min(errors) >= 0 and figures["max_distance"] == max(errors) <= np.pi
    sort = make_world(mode="sort_push")
    figures = sort.summarise(random_episode(sort.make(), seed=0, steps=1)[1:], [0.0])
    assert 0 <= figures["sorted_frac"] <= 1 and "yaw_error_0" not in figures


@pytest.mark.parametrize(("mode", "least"), [("n_cubes", 6), ("ordered_push", 5)])
def test_a_scripted_pusher_succeeds(mode, least):
    """In six episodes; with one cube each is of 50 actions."""
    world = make_world(mode=mode, collector="pusher")
    settings = dataclasses.replace(COLLECT, p_random_action=0.0, action_noise=0.0)
    env = world.make().unwrapped
    player, solved = world.collector(env, settings), 0
    for seed in range(6):
        obs, info = env.reset(seed=seed)
        player.reset(obs, info, np.random.default_rng(seed))
        for _ in range(world.law.episode_steps):
            action = player.act(info)
            assert action.dtype == np.float32 and env.action_space.contains(action)
            info = env.step(action)[4]
        solved += info["success"]
    assert solved >= least


def test_random_actions_are_uniform_and_the_collector_s_own():
    world = make_world()
    player = world.collector(world.make(), COLLECT)
    drawn = []
    for seed in (0, 0, 1):
        player.reset(None, {}, np.random.default_rng(seed))
        drawn.append([player.act({}) for _ in range(300)])
    first, again, other = np.array(drawn)
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    assert first.min() < -0.98 and first.max() > 0.98 and abs(first.mean()) < 0.1


def test_states_need_no_graphics():
    """Not even a graphics library is loaded until a frame is wanted."""
    code = """
import sys
from tests.helpers.pushing_worlds import make_world
env = make_world(multiview=True).make()
env.reset(seed=0)
env.step(env.action_space.sample())
assert not {"mujoco.egl", "OpenGL"} & sys.modules.keys(), "drawn"
assert "ogbench" not in sys.modules and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
