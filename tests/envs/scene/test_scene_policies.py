"""The scripted policies that collect scene data."""

import dataclasses

import numpy as np
import pytest

from envs.base import EpisodeRejected
from envs.scene import rules
from tests.helpers.point_world import COLLECT
from tests.helpers.scene_worlds import make_world

CALM = dataclasses.replace(COLLECT, p_random_action=0.0, action_noise=0.0)
TABLE = np.array([[0.35, 0.05, 0.02]])
IN_DRAWER = np.array([[0.33, -0.24, 0.066]])
NOTHING = rules.Job("button")


def objects(cubes=TABLE, buttons=(1, 1), drawer=-0.16, window=0.0) -> rules.Objects:
    return rules.Objects(np.array(cubes), np.array(buttons), drawer, window)


def jobs(now: rules.Objects, count: int, published: bool = False) -> list[rules.Job]:
    rng = np.random.default_rng(0)
    return [rules.draw_job(rng, now, NOTHING, 0.5, published) for _ in range(count)]


def shares(drawn: list[rules.Job]) -> list[float]:
    names = [job.task for job in drawn]
    return [names.count(name) / len(names) for name in ("cube", "button", "drawer", "window")]


@pytest.mark.parametrize(
    ("now", "weights"),
    [
        (objects(), (1, 1, 1, 1)),
        (objects(buttons=(0, 1)), (1, 1, 0.25, 1)),
        (objects(buttons=(1, 0)), (1, 1, 1, 0.25)),
        (objects(IN_DRAWER), (0, 1, 1, 1)),
    ],
)
def test_jobs_follow_their_weights(now, weights):
    expected = np.array(weights) / sum(weights)
    np.testing.assert_allclose(shares(jobs(now, 2000)), expected, atol=0.035)


@pytest.mark.parametrize(
    ("now", "published", "share"),
    [
        (objects(), False, 0.3),
        (objects(), True, 0.0),
        (objects(drawer=-0.1), False, 0.0),
        (objects([*TABLE, [0.4, 0.15, 0.02]]), False, 0.3),
        (objects([*TABLE, [0.4, 0.15, 0.02]]), True, 0.3),
        (objects([*TABLE, *IN_DRAWER]), False, 0.0),
    ],
)
def test_a_cube_goes_into_an_empty_open_drawer(now, published, share):
    drawn = [job for job in jobs(now, 3000, published) if job.task == "cube"]
    filling = [np.linalg.norm(job.position - rules.DRAWER_CENTER) < 0.01 for job in drawn]
    assert np.mean(filling) == pytest.approx(share, abs=0.05 if share else 0)
    assert all(job.cube == 0 for job in drawn) or len(now.cubes) == 2


def test_cubes_are_stacked_only_on_others():
    now = objects([*TABLE, [0.4, 0.15, 0.02]], drawer=0.0)
    drawn = [job for job in jobs(now, 1000) if job.task == "cube"]
    stacked = [job for job in drawn if job.position[2] == pytest.approx(0.06)]
    assert len(stacked) / len(drawn) == pytest.approx(0.5, abs=0.1)
    for job in stacked:
        np.testing.assert_allclose(job.position[:2], now.cubes[1 - job.cube, :2])


def test_a_job_changes_its_own_target_and_keeps_the_rest():
    now, target = objects(buttons=(1, 0)), objects(buttons=(0, 0), drawer=0.0, window=0.0)
    assert rules.aim(target, now, rules.Job("button", button=1)).buttons.tolist() == [0, 1]
    assert rules.aim(target, now, rules.Job("drawer")).drawer == 0.0  # it is open
    assert rules.aim(target, now._replace(drawer=-0.07), rules.Job("drawer")).drawer == -0.16
    assert rules.aim(target, now, rules.Job("window")).window == 0.2
    assert rules.aim(target, now._replace(window=0.11), rules.Job("window")).window == 0.0
    cubes = rules.aim(target, now, rules.Job("cube", 0, (0.4, 0.1, 0.02))).cubes
    np.testing.assert_array_equal(cubes, [[0.4, 0.1, 0.02]])


@pytest.mark.parametrize(
    ("cube", "healthy"),
    [
        (TABLE, True),
        ([[0.35, 0.289, 0.02]], True),
        ([[0.35, 0.29, 0.02]], False),  # behind the window
        ([[0.33, -0.356, 0.066]], True),  # in the closed drawer
        ([[0.33, -0.356, 0.05]], False),
        ([[0.33, -0.356, 0.09]], False),
        ([[0.33, -0.29, 0.02]], True),
        ([*TABLE, [0.35, 0.3, 0.02]], False),
    ],
)
def test_healthy_episodes_show_their_cubes(cube, healthy):
    assert rules.healthy(np.array(cube)) == healthy


def start(seed: int = 0, published_health_check: bool = False, **settings):
    """Return environment, collector and info of an episode that has begun."""
    world = make_world(mode="data_collection", published_health_check=published_health_check)
    env = world.make().unwrapped
    obs, info = env.reset(seed=seed)
    collector = world.collector(env, dataclasses.replace(CALM, **settings))
    collector.reset(obs, info, np.random.default_rng(seed))
    return env, collector, info


def test_unhealthy_episodes_are_rejected_unless_published():
    for published in (False, True):
        env, collector, info = start(published_health_check=published)
        collector.act(info)
        env._place_cubes(np.array([[0.35, 0.3, 0.02]]), np.zeros(1))
        env._measure()
        info = env.get_reset_info()
        if published:
            collector.act(info)
        else:
            with pytest.raises(EpisodeRejected):
                collector.act(info)


@pytest.mark.parametrize("dataset_type", ["noisy", "play"])
def test_oracles_reach_their_targets_and_leave_the_global_generator_alone(dataset_type):
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    env, collector, info = start(dataset_type=dataset_type)
    reached, ended = set(), 0
    for _ in range(600):
        job = env._job
        obs, *_, info = env.step(collector.act(info))
        if info["success"]:
            reached.add(job.task)
        collector.observe(obs, info)
        ended += env._job is not job
    assert ended >= 8
    assert reached >= {"cube", "button"} and reached & {"drawer", "window"}
    np.testing.assert_array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize("dataset_type", ["noisy", "play"])
def test_an_episode_is_a_function_of_its_seeds(dataset_type):
    noise = {"p_random_action": 0.1, "action_noise": 0.1, "dataset_type": dataset_type}
    episodes = []
    for seed in (3, 3, 4):
        env, collector, info = start(seed, **noise)
        np.random.seed(len(episodes))  # does not matter
        actions = []
        for _ in range(60):
            actions.append(collector.act(info))
            obs, *_, info = env.step(actions[-1])
            collector.observe(obs, info)
        episodes.append(np.array(actions))
    np.testing.assert_array_equal(episodes[0], episodes[1])
    assert (episodes[0] != episodes[2]).any()


def test_collection_settings_are_the_environment_s_and_the_collector_s():
    assert "env_kwargs.scene.mode=data_collection" in make_world().collect_overrides()
    env = make_world(mode="data_collection", published_drawer_rule=True).make().unwrapped
    env.reset(seed=0)
    env._place_objects(objects(), np.zeros(1))
    positions = []
    for _ in range(200):
        env.set_new_target(return_info=False)
        positions.append(env._job.position)
    assert min(position[1] for position in positions[50:]) > -0.1  # never the drawer
