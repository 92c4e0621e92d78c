"""Environments in the hands of other people's code: the same promises in every world."""

import contextlib
import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as gymnasium_check
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as stable_baselines3_check
from torchrl.envs import GymWrapper
from torchrl.envs.utils import check_env_specs

from common.foundation.errors import UserError
from common.foundation.registry import WORLDS, load
from envs.base import World
from envs.environment import Environment
from envs.make import make_env
from envs.ogbench.world import OGBenchSettings, OGBenchWorld
from envs.rendering import rendering_problem
from tests.helpers.corridor_world import corridor_world
from tests.helpers.manipobj_worlds import make_world as cubes
from tests.helpers.pushtetris_worlds import make_world as tetris
from tests.helpers.scene_worlds import make_world as scene

OGBENCH = OGBenchWorld(
    "cube-single-play-v0",
    OGBenchSettings(terminate_at_goal=True),
    max_episode_steps=20,
    multiview=False,
)
EVERY = {"cubes": cubes(), "scene": scene(), "tetris": tetris(), "ogbench": OGBENCH}
STEPS = 5
CANNOT_DRAW = rendering_problem() is not None


@pytest.fixture(scope="module", params=EVERY)
def world(request) -> World:
    return EVERY[request.param]


@pytest.fixture(scope="module")
def env(world) -> gym.Env:
    """An environment of each world, of which models are compiled once."""
    return world.make()


def steps(env: gym.Env, count: int = STEPS) -> list[np.ndarray]:
    """The states of some random steps, the same in all environments."""
    actions = np.random.default_rng(0).uniform(-1, 1, (count, *env.action_space.shape))
    return [env.step(action.astype(np.float32))[4]["state_obs"] for action in actions]


@pytest.mark.parametrize("place", WORLDS.values())
def test_our_environments_keep_these_promises(place: str):
    assert issubclass(load(load(place).environment), Environment)


def test_a_step_before_the_first_reset_is_one_clear_error(world):
    fresh = world.make().unwrapped
    with pytest.raises(gym.error.ResetNeeded, match="call reset before the first step"):
        fresh.step(fresh.action_space.sample())


@pytest.mark.parametrize(
    ("make_action", "message"),
    [
        (lambda shape: np.full(shape, np.nan), r"of finite numbers, this one is \[nan, "),
        (lambda shape: [*np.zeros(shape[0] - 1), -np.inf], r"this one is \[0\.0, .*-inf\]"),
        (lambda shape: torch.full(shape, torch.nan), "of finite numbers"),
        (lambda shape: np.zeros((1, *shape)), r"has the shape \(.,\), this one \(1, .\)"),
        (lambda shape: np.zeros(shape[0] + 1), r"this one \(.,\)"),
        (lambda shape: 0.5, r"this one \(\)"),
        (lambda shape: None, r"this one \(\)"),
        (lambda shape: ["up"] * shape[0], r"of finite numbers, this one is \['up', "),
    ],
)
def test_actions_that_cannot_be_are_refused_and_change_nothing(env, make_action, message):
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message) as error:
        env.step(make_action(env.action_space.shape))
    assert "\n" not in str(error.value)
    after = steps(env, count=1)
    env.reset(seed=0)
    np.testing.assert_array_equal(steps(env, count=1), after)


def test_rows_of_discrete_actions_are_checked_as_well():
    corridor = corridor_world().make()
    corridor.reset(seed=0)
    for row in (np.array([np.nan, 0, 0]), np.zeros(2)):
        with pytest.raises(ValueError, match="an action "):
            corridor.step(row)


@pytest.mark.parametrize("task", WORLDS)
def test_render_without_a_mode_warns_and_draws_nothing(task):
    env = make_env(task, **({"num_cubes": 1} if task == "manipobj-v0" else {}))
    with pytest.warns(UserWarning, match="without specifying any render mode"):
        assert env.render() is None


@pytest.mark.parametrize("name", EVERY)
def test_a_used_environment_is_copied_rightly_or_not_at_all(name):
    """Also one that has drawn; a copy and its original share nothing that changes."""
    world = EVERY[name]
    env = world.make().unwrapped
    env.reset(seed=3)
    steps(env)
    ways = {"deepcopy": copy.deepcopy, "copy": copy.copy}
    ways["pickle"] = lambda env: pickle.loads(pickle.dumps(env))
    right = {"tetris": [*ways], "ogbench": []}.get(name, ["deepcopy", "copy"])
    draws = name != "ogbench" and not (CANNOT_DRAW and world.needs_opengl)
    frames = [env.frame()] if draws else []
    copies = [ways[way](env) for way in right]
    for way in ways.keys() - set(right):
        with pytest.raises(TypeError, match="cannot be copied or pickled; make another") as error:
            ways[way](env)
        assert "\n" not in str(error.value)
    expected, frames, start = steps(env), [env.frame() for _ in frames], env.reset()[0]
    for twin in copies:
        np.testing.assert_array_equal(steps(twin), expected)
        np.testing.assert_array_equal([twin.frame() for _ in frames], frames)
        np.testing.assert_array_equal(twin.reset()[0], start)


@pytest.mark.filterwarnings("ignore:.*Box observation space m.*infinity")
@pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes")
def test_the_checkers_of_gymnasium_stable_baselines3_and_torchrl_pass(env):
    assert not hasattr(env.unwrapped, "compute_reward")  # that of goal environments
    gymnasium_check(env.unwrapped, skip_render_check=CANNOT_DRAW)
    stable_baselines3_check(env)
    check_env_specs(GymWrapper(env))


def test_environments_are_stepped_side_by_side_and_in_processes(world):
    """With spawn; both ways come to the same."""
    episodes = []
    for vector in (SyncVectorEnv([world.make] * 2), AsyncVectorEnv([world.make], context="spawn")):
        with contextlib.closing(vector):
            first = vector.reset(seed=[4, 5][: vector.num_envs])[0]
            actions = np.full((STEPS, *vector.action_space.shape), 0.3, np.float32)
            episodes.append([first, *(vector.step(action)[0] for action in actions)])
    here, there = (np.array(episode)[:, 0] for episode in episodes)
    np.testing.assert_array_equal(here, there)


@pytest.mark.skipif(CANNOT_DRAW, reason="this machine cannot render")
def test_forked_processes_say_that_they_cannot_draw_instead_of_hanging():
    """Once the process that they come from has drawn; without frames they work."""
    drawn = cubes().make()
    drawn.reset(seed=0)
    drawn.unwrapped.frame()
    for make in (cubes().make, lambda: cubes().make(pixels=True)):
        vector = AsyncVectorEnv([make], context="fork")
        vector.reset_async(seed=0)
        if vector.single_observation_space.dtype == np.uint8:
            with pytest.raises(UserError, match=r"forked from one .*AsyncVectorEnv\(.*spawn"):
                vector.reset_wait(timeout=60)
        else:
            assert vector.reset_wait(timeout=60)[0].shape == (1, 21)
        vector.close(terminate=True)
