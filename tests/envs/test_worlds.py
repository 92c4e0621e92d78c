"""Tests that every world has to pass."""

import json
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import envs  # noqa: F401 (registers the environments)
from common.foundation.errors import UserError
from envs.make import make_env
from envs.manipobj import modes
from tests.helpers.manipobj_worlds import make_world as cubes
from tests.helpers.point_world import COLLECT
from tests.helpers.pushing_worlds import make_world as pushing
from tests.helpers.pushtetris_worlds import make_world as tetris
from tests.helpers.scene_worlds import make_world as scene
from tests.helpers.worlds import random_episode

WORLDS = [cubes, pushing, scene, tetris]
COLLECTION = {"mode": "data_collection"}


@pytest.mark.parametrize(
    ("make_world", "changes"),
    [(world, {}) for world in WORLDS]
    + [(world, COLLECTION) for world in WORLDS if world is not pushing]
    + [(pushing, {"mode": "num_cubes"}), (pushing, {"mode": "push_t", "num_objects": 2})],
)
def test_a_seed_reproduces_the_whole_episode(make_world, changes):
    """After another episode, and beside a second environment that shares its model."""
    first, other = (make_world(**changes).make().unwrapped for _ in range(2))
    random_episode(first, seed=3, steps=5)
    episode = random_episode(first, seed=4, steps=110 if make_world is tetris else 10)
    other.reset(seed=8, options={"task_id": 1})  # in the scene, its locks are not the first's
    shape = len(episode) - 1, *first.action_space.shape
    actions = np.random.default_rng(4).uniform(-1, 1, shape).astype(np.float32)
    again = [first.reset(seed=4)[1]]
    for action in actions:
        other.step(action)
        again.append(first.step(action)[4])
    fresh = random_episode(make_world(**changes).make(), seed=4, steps=len(actions))
    for infos in zip(episode, again, fresh, strict=True):
        for info in infos[1:]:
            assert info.keys() == infos[0].keys()
            for key, value in info.items():
                np.testing.assert_array_equal(value, infos[0][key], err_msg=key)


@pytest.mark.parametrize("make_world", WORLDS)
def test_seeds_differ(make_world):
    env = make_world().make()
    infos = [env.reset(seed=seed)[1] for seed in range(8)]
    for key in ("state_goal", "state_obs"):
        assert len({info[key].tobytes() for info in infos}) == 8


@pytest.mark.filterwarnings("ignore:.*Box observation space m.*infinity")
@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("manipobj-v0", {"num_cubes": 2, "ob_type": "states_clean"}, (16,)),
        ("manipobj-v0", {"num_cubes": 1}, (28,)),
        ("hecrl/visual-scene-v0", {"num_cubes": 2}, (49,)),
        ("hecrl/visual-scene-v0", {"ob_type": "states_clean"}, (17,)),
        ("pushing-v0", {"num_objects": 3}, (8,)),
        ("pushing-v0", {"mode": "push_t", "render_mode": "rgb_array"}, (6,)),
        ("pushing-v0", {"ob_type": "pixels", "multiview": True}, (2, 128, 128, 3)),
        ("pushtetris-v0", {"render_mode": "rgb_array"}, (44,)),
        ("pushtetris-v0", {"ob_type": "pixels", "render_mode": "rgb_array"}, (128, 128, 3)),
    ],
)
def test_gymnasium_accepts_it(name, arguments, shape):
    env = gym.make(name, **arguments).unwrapped
    assert env.observation_space.shape == shape
    assert env.action_space is env.action_space
    check_env(env, skip_render_check="render_mode" not in arguments)


def test_ogbench_s_scene_keeps_its_name():
    import ogbench.manipspace  # noqa: F401  registers OGBench's

    entry = gym.registry["visual-scene-v0"].entry_point
    assert entry == "ogbench.manipspace.envs.scene_env:SceneEnv"


def test_config_yaml_has_the_defaults_of_environments():
    env = make_env("manipobj-v0", num_cubes=3, reward_mode="dense")
    assert (env.settings.random_colors, env.settings.width, env.reward_mode) == (True, 128, "dense")
    with pytest.raises(UserError, match=r"num_cubes=0 is not possible; give .*num_cubes=N"):
        make_env("manipobj-v0")
    with pytest.raises(TypeError, match="colour"):
        make_env("pushtetris-v0", colour=True)


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("manipobj-v0", {"mode": "random"}, "mode=random is not known"),
        ("manipobj-v0", {"mode": "task_stacks"}, "mode=task_stacks .* mean task_stack"),
        ("manipobj-v0", {"mode": "task_sort"}, "num_colors=6 is too many .* K from 1 to 5"),
        ("manipobj-v0", {"num_cubes": 7}, "num_cubes=7 is too large"),
        ("manipobj-v0", {"reward_mode": "chamfer"}, "reward_mode=chamfer is not known"),
        ("visual-scene-v0", {"mode": "task_stack"}, "mode=task_stack is not known"),
        ("visual-scene-v0", {"num_cubes": 3}, "num_cubes=3 is too large"),
        ("visual-scene-v0", {"reward_mode": "dense"}, "reward_mode=dense .*: sparse, step"),
        ("pushing-v0", {"mode": "push"}, "mode=push is not known; allowed: n_cubes"),
        ("pushing-v0", {"num_objects": 13}, "num_objects=13 is too large"),
        ("pushtetris-v0", {"reward_mode": "chamfer"}, "reward_mode=chamfer .*: sparse, step"),
        ("pushtetris-v0", {"mode": "random"}, "mode=random is not known"),
        ("pushtetris-v0", {"object_list": ("L", "Q")}, "object_list=Q .* allowed: O, I, S"),
        ("pushtetris-v0", {"object_list": ("L", "T", "L")}, "L,T,L names a piece twice"),
        ("pushtetris-v0", {"object_list": ("L", "T")}, "num_objects=3 is not .* of 2 pieces"),
        ("pushtetris-v0", {"num_objects": 0}, "num_objects=0 is too small"),
    ],
)
def test_impossible_environments_are_refused_in_one_line(task, changes, message):
    with pytest.raises(UserError, match=message) as error:
        make_env(task, **({"num_cubes": 1} if task == "manipobj-v0" else {}) | changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make_world", WORLDS)
def test_worlds_can_be_sent_to_workers_and_described(make_world):
    world = pickle.loads(pickle.dumps(make_world()))
    observation, _ = world.make().reset(seed=0)
    assert observation.shape == (world.state_dim,)
    header = json.loads(json.dumps(world.describe()))
    assert world.compatible(header) is None
    assert header["versions"].keys() == set(world.packages)
    assert "elsewhere-v0" in world.compatible(header | {"environment": "elsewhere-v0"})


@pytest.mark.parametrize(
    ("world", "image"),
    [
        (cubes(), (32, 32, 3)),
        (cubes(multiview=True), (2, 32, 32, 3)),
        (pushing(num_objects=2), (32, 32, 3)),
        (scene(multiview=True), (2, 32, 32, 3)),
        (tetris(render_size=64), (64, 64, 3)),
    ],
)
def test_columns_are_those_of_infos(world, image):
    info = random_episode(world.make(), seed=0, steps=1)[-1]
    columns = world.dataset_columns(pixels=False)
    columns["state_obs"] = columns.pop("state_observations")
    for name in columns.keys() - {"actions", "terminals"}:
        assert columns[name][0] == info[name].shape, name
    assert world.dataset_columns(pixels=True)["observations"] == (image, "uint8")


@pytest.mark.parametrize(
    ("world", "mode"),
    [(cubes(mode=mode, num_colors=5), mode) for mode in modes.GOALS]
    + [(scene(), "task"), (tetris(), "task")],
)
def test_task_modes_are_not_collected(world, mode):
    """The message names the mode that collects data for this one."""
    stack = "_stack" if "stack" in mode else ""
    message = (
        rf"\.{world.section}\.mode={mode} collects nothing; .*mode=data_collection{stack}( |$)"
    )
    with pytest.raises(UserError, match=message):
        world.collector(None, COLLECT)


@pytest.mark.parametrize("world", [cubes(), scene(), scene(num_cubes=2)])
def test_entities_turn_back_into_states(world):
    state = torch.randn(2, 4, world.state_dim, dtype=torch.float64)
    rows = world.state_entities(state)
    assert rows.shape == (2, 4, len(world.entity_names), world.entity_dim)
    torch.testing.assert_close(world.entities_state(rows), state)
    first = 6 + 5 * (world.num_cubes - 1)  # column of the last cube
    torch.testing.assert_close(rows[..., 0, :6], state[..., :6])
    torch.testing.assert_close(rows[..., world.num_cubes, :5], state[..., first : first + 5])
    positions = world.entity_positions(state)
    torch.testing.assert_close(positions[..., :3], rows[..., 1:, :3])
