"""The scene's world: data of either column order, entities, figures."""

import json

import numpy as np
import pytest
import torch

from agents.observations.kinds import make_observation
from common.foundation.errors import UserError
from envs.scene import rules
from tests.helpers.scene_worlds import make_world
from tests.helpers.worlds import random_episode

CUBE, TURNED = [0.35, 0.05, 0.02, 1, 0, 0, 0], [0.35, 0.05, 0.02, 0, 0, 0, 1]


def row(cubes_first: bool, cube=CUBE, buttons=(0, 1), drawer=-0.1, window=0.1) -> dict:
    """One row (1, ...) of data in one of the two column orders; button joints are at rest."""
    others = [0.0, 0.0, drawer, window]
    parts = [cube, others] if cubes_first else [others, cube]
    qpos = torch.tensor([[0.5] * 14 + parts[0] + parts[1]])
    return {"qpos": qpos, "button_states": torch.tensor([buttons])}


@pytest.mark.parametrize("cubes_first", [True, False])
@pytest.mark.parametrize(
    ("change", "reached", "step"),
    [
        ({}, 0, 0),
        ({"cube": TURNED}, 0, 0),
        ({"cube": [0.37, 0.08, *CUBE[2:]]}, 0, 0),
        ({"cube": [0.55, *CUBE[1:]]}, -1, -0.2),
        ({"cube": [*CUBE[:2], 0.07, *CUBE[3:]]}, -1, -0.2),
        ({"buttons": (0, 0)}, -1, -0.2),
        ({"buttons": (1, 0)}, -1, -0.4),
        ({"drawer": -0.15}, -1, -0.2),
        ({"drawer": -0.07}, 0, 0),
        ({"window": 0.0}, -1, -0.2),
    ],
)
def test_reward_of_stored_rows_in_both_column_orders(cubes_first, change, reached, step):
    for mode, expected in (("sparse", reached), ("step", step)):
        world = make_world(reward_mode=mode)
        header = world.describe() | {"qpos_layout": rules.qpos_layout(1, cubes_first)}
        reader = world.adopt(json.loads(json.dumps(header)))
        reward = reader.reward(row(cubes_first, **change), row(cubes_first))
        assert reward.shape == (1,) and reward.dtype == torch.float32
        assert reward.item() == pytest.approx(expected)
    assert world.qpos_layout() == rules.qpos_layout(1)  # itself unchanged


@pytest.mark.parametrize("reward_mode", rules.REWARD_MODES)
def test_batched_reward_equals_the_environment_s(reward_mode):
    world = make_world(reward_mode=reward_mode, num_cubes=2)
    env = world.make().unwrapped
    rng, rows, goals, expected = np.random.default_rng(0), [], [], []
    for seed in range(12):
        env.reset(seed=seed)
        goal = env._target
        changes = {
            "cubes": goal.cubes + np.array([rng.choice([0.0, 0.1]), 0, 0]),
            "buttons": rng.integers(2, size=2) if seed % 2 else goal.buttons,
            "drawer": rng.choice([goal.drawer, -0.08]),
            "window": rng.choice([goal.window, 0.1]),
        }
        env._place_objects(goal._replace(**changes), np.zeros(2))
        env._apply_button_states()
        env._measure()
        expected.append(env._judge())
        rows.append({"qpos": env.data.qpos.copy(), "button_states": env._cur_button_states})
        env._place_objects(goal, np.zeros(2))
        goals.append({"qpos": env.data.qpos.copy(), "button_states": goal.buttons})
    batches = [
        {key: torch.tensor(np.array([each[key] for each in part])) for key in part[0]}
        for part in (rows, goals)
    ]
    np.testing.assert_allclose(world.reward(*batches), expected, atol=1e-6)
    assert len(set(np.round(expected, 3))) > 1


@pytest.mark.parametrize("num_cubes", [1, 2])
@pytest.mark.parametrize("cubes_first", [True, False])
def test_files_of_others_are_recognised_by_their_quaternions(num_cubes, cubes_first):
    rng, layout = np.random.default_rng(0), rules.qpos_layout(num_cubes, cubes_first)
    qpos = rng.uniform(-0.4, 0.4, (16, 18 + 7 * num_cubes)).astype(np.float32)
    for i in range(num_cubes):
        columns = slice(*layout[f"cube_{i}_quaternion_wxyz"])
        qpos[:, columns] /= np.linalg.norm(qpos[:, columns], axis=1, keepdims=True)
    sample = {
        "qpos": qpos,
        "actions": np.zeros((16, 5), np.float32),
        "terminals": np.zeros(16, bool),
        "button_states": np.zeros((16, 2), np.int64),
        "observations": np.zeros((16, 128, 128, 3), np.uint8),
    }
    world = make_world(num_cubes=num_cubes)
    header = world.recognise(sample)
    assert header["qpos_layout"] == layout
    assert world.compatible(header) is None
    with pytest.raises(UserError, match="num_cubes"):
        make_world(num_cubes=3 - num_cubes).recognise(sample)
    sample["qpos"] = rng.uniform(-0.4, 0.4, qpos.shape)
    with pytest.raises(UserError, match="qpos"):
        world.recognise(sample)


def test_columns_and_layout_agree_with_the_environment():
    world = make_world()
    info = random_episode(world.make(), seed=0, steps=1)[-1]
    layout = world.qpos_layout()
    for name, key in (
        ("cube_0_xyz", "block_0_pos"),
        ("cube_0_quaternion_wxyz", "block_0_quat"),
        ("drawer", "drawer_pos"),
        ("window", "window_pos"),
    ):
        np.testing.assert_array_equal(info["qpos"][slice(*layout[name])], info[f"privileged/{key}"])
    buttons = [info[f"privileged/button_{i}_pos"][0] for i in range(2)]
    np.testing.assert_array_equal(info["qpos"][slice(*layout["buttons"])], buttons)


@pytest.mark.parametrize("num_cubes", [1, 2])
def test_only_what_can_move_differs_between_entities(num_cubes):
    world = make_world(num_cubes=num_cubes)
    rows = world.state_entities(torch.randn(2, 4, world.state_dim))
    # of buttons, drawer and window only state, depth and slide can change
    changed = (rows[0, 0] != rows[1, 0]).sum(-1).tolist()
    assert changed == [6, *[5] * num_cubes, 2, 2, 1, 1]


def test_entities_are_where_the_simulator_has_them():
    world = make_world()
    info = random_episode(world.make(), seed=2, steps=5)[-1]
    rows = world.state_entities(torch.tensor(info["state_obs"]))[:, :3].numpy()
    names = ["proprio/effector_pos", "privileged/block_0_pos"]
    names += ["privileged/drawer_handle_pos", "privileged/window_handle_pos"]
    expected = (np.array([info[name] for name in names]) - [0.425, 0, 0]) * 10
    np.testing.assert_allclose(rows[[0, 1, 4, 5]], expected, atol=0.01)


@pytest.mark.parametrize("kind", ["ec_state", "ec_state_gen"])
def test_agents_on_entities_see_it(kind):
    world = make_world()
    observation = make_observation(kind, world)
    identities = observation.identities(3, torch.Generator().manual_seed(0))
    raw = torch.randn(3, world.state_dim)
    encoded = observation.encode(raw, identities)
    assert encoded.shape == (3, *observation.shape) and observation.shape[0] == 6
    torch.testing.assert_close(observation.decode(encoded), raw)


def test_statistics_of_rows_by_hand():
    """Two episodes of two rows: the jump between them is no motion."""
    layout = rules.qpos_layout(1)
    qpos = np.zeros((4, 25), np.float32)
    inside = (0.33, -0.256, 0.066)
    cubes = [(0.4, 0.0, 0.02), (0.4, 0.002, 0.04), inside, (0.3305, *inside[1:])]
    qpos[:, slice(*layout["cube_0_xyz"])] = cubes
    qpos[:, layout["drawer"][0]] = [0, 0, -0.16, -0.16]
    qpos[:, layout["window"][0]] = [0.2, 0, 0, 0]
    states = np.zeros((4, 17), np.float32)
    states[:, 2], states[:, 5] = 1.5, (0, 3, 0, 0)
    columns = {
        "qpos": qpos,
        "button_states": np.zeros((4, 2), int),
        "actions": np.array([[-1, 0, 0, 0, 1]] * 4, np.float32),
        "state_observations": states,
    }
    figures = make_world().statistics(columns, np.array([2, 2]))
    assert figures["steps with a cube moving > 1 mm"] == 0.5
    assert figures["mean highest cube z (m)"] == pytest.approx((0.02 + 0.04 + 2 * 0.066) / 4)
    assert figures["a cube in the drawer"] == 0.5 and figures["drawer open"] == 0.5
    assert figures["window open"] == 0.25 and figures["button 1 on"] == 0
    assert figures["mean gripper opening (0 open, 1 closed)"] == 0.25
    assert figures["mean effector z (m)"] == pytest.approx(0.15)
    assert [figures[f"mean |action {i}|"] for i in range(5)] == [1, 0, 0, 0, 1]


def test_stored_rows_can_be_drawn_in_both_column_orders(monkeypatch):
    world = make_world()
    env = world.make()
    info = random_episode(env, seed=0, steps=3)[-1]
    scene, drawn = env.unwrapped, []
    monkeypatch.setattr(
        scene, "frame", lambda: drawn.append((scene.data.qpos.copy(), scene._cur_button_states))
    )
    ours, theirs = rules.qpos_layout(1), rules.qpos_layout(1, cubes_first=False)
    stored = info["qpos"].copy()
    for name, columns in theirs.items():
        stored[slice(*columns)] = info["qpos"][slice(*ours[name])]
    env.reset(seed=1)
    for layout, qpos in ((ours, info["qpos"]), (theirs, stored)):
        row = {"qpos": qpos, "button_states": np.array([0, 1])}
        world.adopt({"qpos_layout": layout}).replay(env, row)
    for qpos, buttons in drawn:
        np.testing.assert_array_equal(qpos, info["qpos"])
        assert buttons.tolist() == [0, 1]
