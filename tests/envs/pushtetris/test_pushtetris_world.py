"""The Push-Tetris world: rewards of stored masks, entities, collection, training, evaluation."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.observations.kinds import make_observation
from common.evaluation.evaluate import evaluate
from common.foundation.errors import UserError
from common.runs.loading import load_training_data
from common.runs.setup import make_setup
from common.settings.config import Config, compose
from datasets.store import Dataset
from envs.make import make_world
from envs.pushtetris import rules
from envs.pushtetris.policies import ConstrainedRandom
from envs.pushtetris.world import count_bits
from tests.conftest import TINY
from tests.helpers import pushtetris_worlds as worlds
from tests.helpers.datasets import run
from tests.helpers.point_world import COLLECT
from tests.helpers.worlds import random_episode

EPISODES, LENGTH = 5, 40


def states_and_masks(world, seeds: int, steps: int) -> dict[str, torch.Tensor]:
    """Columns of random episodes: `state` (R, S), `image_bitmasks` (R, N, M)."""
    env = world.make().unwrapped
    infos = [info for seed in range(seeds) for info in random_episode(env, seed, steps)]
    columns = {"state": "state_obs", "image_bitmasks": "image_bitmasks"}
    return {
        name: torch.from_numpy(np.stack([info[key] for info in infos]))
        for name, key in columns.items()
    }


# What the world says.


def test_data_of_other_pieces_or_pictures_do_not_fit():
    header = worlds.make_world(num_objects=2).describe()
    for changes, message in (
        ({"num_objects": 3}, "the data has num_objects=2, this environment num_objects=3"),
        ({"object_list": ("L", "J"), "num_objects": 2}, "this environment object_list=[L,J]"),
        ({"render_size": 64, "num_objects": 2}, "render_size=128, this environment render_size=64"),
    ):
        assert message in worlds.make_world(**changes).compatible(header)


def test_the_named_command_collects_for_this_world():
    world = worlds.make_world(object_list=("L", "J"), num_objects=2)
    config = compose(world.collect_overrides())
    assert config.world.mode == "data_collection"
    assert make_world(config).compatible(world.describe()) is None
    assert len(worlds.make_world().collect_overrides()) == 3


def test_there_is_one_view():
    with pytest.raises(UserError, match="multiview=true is not possible"):
        make_world(compose(["task=pushtetris-v0", "multiview=true"]))


@pytest.mark.parametrize("num_objects", [1, 3, 7])
def test_entities_turn_back_into_states(num_objects):
    world = worlds.make_world(num_objects=num_objects)
    state = states_and_masks(world, seeds=2, steps=20)["state"]
    entities = world.state_entities(state)
    assert entities.shape == (42, num_objects + 1, 12)
    back = world.entities_state(entities).unflatten(-1, (-1, 11))
    rows = state.unflatten(-1, (-1, 11))
    angle = [0, 1, *range(3, 11)]
    torch.testing.assert_close(back[..., angle], rows[..., angle], rtol=0, atol=1e-4)
    turns = (back[..., 2] - rows[..., 2]) / (2 * torch.pi)
    torch.testing.assert_close(turns, turns.round(), rtol=0, atol=1e-5)
    torch.testing.assert_close(world.entity_positions(state), entities[:, 1:, :2])


def test_an_entity_row_says_where_and_what():
    world = worlds.make_world(num_objects=1, object_list=("L", "T"))
    state = torch.tensor([256.0, 156, 0, 1, 0, 0, 356, 256, np.pi / 2 + 2 * np.pi, 0, 0, 1])
    expected = torch.tensor([[0, -1, 1, 0, 1, 0, 0], [1, 0, 0, 1, 0, 0, 1.0]])
    torch.testing.assert_close(world.state_entities(state), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["ec_state", "ec_state_gen"])
def test_observations_add_no_identities(kind):
    world = worlds.make_world(num_objects=2)
    observation = make_observation(kind, world)
    assert observation.shape == (3, 12)
    state = states_and_masks(world, seeds=1, steps=4)["state"]
    identities = observation.identities(5, torch.Generator())
    assert torch.equal(observation.encode(state, identities), world.state_entities(state))
    assert observation.decode(world.state_entities(state)).shape == state.shape


# Rewards of stored rows.


def test_bits_are_counted():
    masks = np.random.default_rng(0).integers(0, 256, (5, 3, 64), np.uint8)
    masks[0], masks[1] = 0, 255
    counted = count_bits(torch.from_numpy(masks))
    np.testing.assert_array_equal(counted, np.unpackbits(masks, axis=-1).sum(-1))
    sliced = count_bits(torch.from_numpy(masks)[:, ::2])
    np.testing.assert_array_equal(sliced, counted[:, ::2])


@pytest.mark.parametrize("reward_mode", rules.REWARD_MODES)
def test_batched_reward_equals_the_environment_s(reward_mode):
    world = worlds.make_world(reward_mode=reward_mode)
    env = world.make().unwrapped
    env.reset(seed=1)
    rng = np.random.default_rng(0)
    bits, rewards = [], []
    for _ in range(40):
        poses = np.concatenate([[(256, 256, 0)], env._goal_poses])
        poses[:, :2] += rng.uniform(-9, 9, (4, 2)) * rng.integers(0, 2, (4, 1))
        worlds.put(env, poses)
        _, reward, *_, info = env.step(np.zeros(2))
        rewards.append(reward)
        bits.append(info["image_bitmasks"])
    rows = {"image_bitmasks": torch.from_numpy(np.stack(bits))}
    goals = {"image_bitmasks": torch.from_numpy(env._goal_bits).expand(40, -1, -1)}
    result = world.reward(rows, goals)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, torch.tensor(rewards))
    assert len(set(rewards)) >= 2


def test_a_goal_that_shows_nothing_is_not_reached():
    world = worlds.make_world(num_objects=1, reward_mode="step")
    masks = torch.zeros(2, 1, 2048, dtype=torch.uint8)
    masks[0] = 255
    rewards = world.reward({"image_bitmasks": masks}, {"image_bitmasks": masks[[1, 0]]})
    assert rewards.tolist() == [-1, -1]


# Episodes in figures.


def test_statistics_of_hand_made_episodes():
    world = worlds.make_world(num_objects=1, object_list=("O",))
    rows = np.zeros((5, 2, 5), np.float32)  # an episode of three rows and one of two
    rows[:, 0, 0] = [0, 3, 3, 50, 50]
    rows[:, 0, 1] = [0, 4, 14, 50, 50]
    rows[:, 1, 0] = [0, 3, 30, 0, 0]
    columns = {"state_observations": rows.reshape(5, -1), "actions": np.tile([-0.5, 0.1], (5, 1))}
    figures = world.statistics(columns, np.array([3, 2]))
    expected = {"interaction_rate": 2 / 3, "agent_move": 5.0}
    expected |= {"mean_abs_action": 0.3, "piece_displacement": 15.0}
    assert figures == pytest.approx(expected)


# Collection.


def test_the_policy_stays_near_its_target():
    env = worlds.make_env(mode="data_collection")
    info = env.reset(seed=0)[1]
    policy = ConstrainedRandom(env, COLLECT)
    policy.reset(info["state_obs"], info, np.random.default_rng(0))
    distances = []
    for _ in range(100):
        action = policy.act(info)
        assert action.dtype == np.float32 and env.action_space.contains(action)
        target = info["block_pose"][info["target_block"], :2]
        point = info["pos_agent"] + 100 * action.astype(float)
        distances.append(abs(point - target).max())
        info = env.step(action)[4]
    # Once it has come near, it never aims farther away than 100 units.
    assert max(distances[15:]) <= 100.001 and max(distances) > 60


def test_the_target_changes_every_hundred_steps():
    env = worlds.make_env(mode="data_collection", num_objects=7)
    targets = [info["target_block"] for info in random_episode(env, seed=0, steps=1000)]
    changes = [step for step, (a, b) in enumerate(pairwise(targets), 1) if a != b]
    assert len(changes) >= 6 and all(step % 100 == 0 for step in changes)


def test_there_is_one_policy():
    play = dataclasses.replace(COLLECT, dataset_type="play")
    with pytest.raises(UserError, match="dataset_type=play is not possible"):
        ConstrainedRandom(worlds.make_env(mode="data_collection"), play)


# From collecting to evaluating.


def settings(data_dir: Path, *overrides: str) -> Config:
    return compose(
        [
            *(line for line in TINY if "manipobj" not in line),
            "task=pushtetris-v0",
            "env_kwargs.pushtetris.num_objects=2",
            "obs=ec_state",
            f"max_episode_steps={LENGTH}",
            f"data_dir={data_dir}",
            *overrides,
        ]
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the dataset `tiny`: episodes with two pieces, states only."""
    folder = tmp_path_factory.mktemp("data")
    config = settings(folder, "env_kwargs.pushtetris.mode=data_collection")
    run(folder, "tiny", make_world(config), episodes=EPISODES, seed=0, settings=config.collect)
    return folder


def test_collected_rows(data_dir):
    dataset = Dataset.open(data_dir, "tiny")
    columns = dataset.read_episode("train", 0)
    assert {name: (column.shape, column.dtype.name) for name, column in columns.items()} == {
        "actions": ((LENGTH, 2), "float32"),
        "terminals": ((LENGTH,), "bool"),
        "state_observations": ((LENGTH, 33), "float32"),
        "image_bitmasks": ((LENGTH, 2, 2048), "uint8"),
    }
    assert columns["terminals"].tolist() == [False] * (LENGTH - 1) + [True]
    # A row is of the moment before its action: the state moves as the action says.
    agent = columns["state_observations"][:, :2]
    moves, actions = np.diff(agent, axis=0), columns["actions"][:-1]
    assert np.corrcoef(moves.ravel(), actions.ravel())[0, 1] > 0.8
    file = data_dir / "tiny" / "train" / "000000.h5"
    assert file.stat().st_size < LENGTH * 2 * 2048 / 3  # masks are stored packed tightly


def test_collected_images(tmp_path):
    world = worlds.make_world(mode="data_collection", max_episode_steps=4)
    columns = run(tmp_path, "images", world, episodes=1, pixels=True).read_episode("train", 0)
    assert columns["observations"].shape == (4, 128, 128, 3)
    kind = columns["state_observations"][0].reshape(4, 11)[1, 4:].argmax()
    shown = (columns["observations"] == list(rules.PIECES.values())[kind].color).all(-1)
    bits = np.packbits(shown.reshape(4, -1), axis=1)
    np.testing.assert_array_equal(bits, columns["image_bitmasks"][:, 0])


def test_collected_data_look_like_the_reference_s():
    """Figures of the reference's collection with three pieces, with room for a small sample."""
    world = worlds.make_world(mode="data_collection")
    env = world.make().unwrapped
    policy, rows, actions = world.collector(env, COLLECT), [], []
    for seed in range(6, 12):
        observation, info = env.reset(seed=seed)
        policy.reset(observation, info, np.random.default_rng(seed))
        for _ in range(400):
            rows.append(info["state_obs"])
            actions.append(policy.act(info))
            info = env.step(actions[-1])[4]
    columns = {"state_observations": np.array(rows), "actions": np.array(actions)}
    figures = world.statistics(columns, np.full(6, 400))
    assert 0.14 < figures["interaction_rate"] < 0.27  # 0.202
    assert 19 < figures["agent_move"] < 21.5  # 20.2
    assert 0.39 < figures["mean_abs_action"] < 0.45  # 0.42
    assert 80 < figures["piece_displacement"] < 180  # 128


def test_goals_of_other_episodes_are_refused_with_rewards_of_masks(data_dir):
    shares = ("p_trajgoal_value=0.5", "p_randgoal_value=0.3")
    for reward in ("env", "unsupervised"):
        config = settings(data_dir, *shares, f"reward={reward}")
        world = make_world(config)
        load = (config, world, make_observation("ec_state", world), torch.device("cpu"))
        if reward == "env":
            with pytest.raises(UserError, match=r"p_randgoal_value=0\.3 is not possible"):
                load_training_data(*load)
        else:
            assert load_training_data(*load)[0].reward_rows == {}


def test_goals_of_other_episodes_are_possible_with_one_kind_of_piece(tmp_path):
    one = ("env_kwargs.pushtetris.num_objects=1", "env_kwargs.pushtetris.object_list=[O]")
    mode = "env_kwargs.pushtetris.mode=data_collection"
    config = settings(tmp_path, *one, mode)
    run(tmp_path, "one", make_world(config), episodes=8, seed=0, settings=config.collect)
    shares = ("p_curgoal_value=0", "p_trajgoal_value=0", "p_randgoal_value=1")
    config = settings(tmp_path, *one, *shares, "train_dataset_name=one")
    world = make_world(config)
    load = (config, world, make_observation("ec_state", world), torch.device("cpu"))
    buffer, _ = load_training_data(*load)
    batch = buffer.sample(64, torch.Generator().manual_seed(0))
    assert batch.reward.mean() < -0.5  # pieces lie elsewhere in most other episodes


def test_an_agent_learns_and_is_filmed(data_dir):
    config = settings(data_dir)
    world = make_world(config)
    observation = make_observation(config.obs, world)
    buffer, normaliser = load_training_data(config, world, observation, torch.device("cpu"))
    batch = buffer.sample(64, torch.Generator().manual_seed(0))
    assert batch.obs.shape == (64, 3, 12) and set(batch.reward.tolist()) == {-1.0, 0.0}
    setup = make_setup(config, world, observation, normaliser)
    parts = setup.agent, setup.world, setup.observation, setup.normaliser
    spread = {"episodes": 1, "seed": 3, "num_envs": 1, "workers": 1}
    result = evaluate(*parts, **spread, videos=1, video_frame_skip=20)
    assert set(world.metrics) <= result.summary.keys()
    (clip,) = result.clips
    assert {frame.shape for frame in (clip.goal, *clip.frames)} == {(128, 128, 3)}
    assert len(clip.frames) == 3  # steps 0 and 20 of 40, and the end
