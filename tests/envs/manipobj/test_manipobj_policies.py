"""The scripted policies that collect cube data."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from envs.manipobj import modes, rules
from envs.manipobj.policies import ManipObjCollector, PickPlacePolicy, PushPolicy
from envs.tabletop import table
from tests.helpers.manipobj_worlds import make_world
from tests.helpers.point_world import COLLECT

CUBE = np.array([0.4, 0.1, 0.02])
SIDE = np.array([0.47, 0.1, 0.02])  # right of the cube at yaw 0


@pytest.fixture(scope="module")
def env():
    """A collection environment with two cubes."""
    return make_world(mode="data_collection", num_cubes=2).make().unwrapped


def push_info(effector: np.ndarray, *, cube_yaw: float = 0.0, effector_yaw: float = 0.0) -> dict:
    return {
        "proprio/effector_pos": effector,
        "proprio/effector_yaw": np.array([effector_yaw]),
        "privileged/target_block": 0,
        "privileged/block_0_pos": CUBE,
        "privileged/block_0_yaw": np.array([cube_yaw]),
    }


def push_policy(face: tuple[int, int] = (1, 1)) -> PushPolicy:
    policy = PushPolicy(env=None, min_norm=0.4)
    policy.reset(np.random.default_rng(0))
    policy._face = face
    return policy


def test_push_goes_above_the_side_then_down_then_against_the_cube():
    policy = push_policy()
    # far away: towards the point above the side, gripper open
    action = policy.select_action(None, push_info(np.array([0.3, -0.2, 0.3])))
    direction = SIDE + np.array([0, 0, 0.18]) - np.array([0.3, -0.2, 0.3])
    stretched = direction * 0.4 / np.linalg.norm(direction)  # shorter than the minimum norm
    assert np.linalg.norm(direction) < 0.4
    np.testing.assert_allclose(action[:3], np.clip(stretched * 5, -1, 1), atol=1e-4)
    assert action[4] == -1
    # above the side: down, gripper closed
    action = policy.select_action(None, push_info(SIDE + np.array([0, 0.03, 0.18])))
    assert action[2] == -1 and action[4] == 1
    assert not policy._beside
    # beside the cube: against it, and from now on wherever the effector is
    for away in ([0.01, 0, 0.01], [0, 0, 0.3]):
        action = policy.select_action(None, push_info(SIDE + np.array(away)))
        assert action[0] < 0 and action[4] == 1
    assert policy._pushed == 2


@pytest.mark.parametrize("face", PushPolicy.faces)
def test_push_faces_are_the_published_ones(face):
    """Front and back are mirror images of right and left, not perpendicular to them."""
    angle = 0.5
    offset = 0.07 * np.array([face[0] * np.cos(angle), face[1] * np.sin(angle), 0])
    policy = push_policy(face)
    # exactly beside that face the push begins at once, elsewhere it does not
    policy.select_action(None, push_info(CUBE - offset, cube_yaw=angle, effector_yaw=angle))
    assert policy._pushed == 0
    policy.select_action(None, push_info(CUBE + offset, cube_yaw=angle, effector_yaw=angle))
    assert policy._pushed == 1


def test_push_draws_every_face():
    policy, rng, faces = push_policy(), np.random.default_rng(0), []
    for _ in range(400):
        policy.reset(rng)
        faces.append(policy._face)
    counts = [faces.count(face) for face in ((1, 1), (-1, -1), (-1, 1), (1, -1))]
    assert sum(counts) == 400 and min(counts) > 70


def test_push_turns_to_the_nearest_of_four_yaws():
    policy = push_policy()
    info = push_info(np.array([0.3, 0, 0.3]), cube_yaw=0.1, effector_yaw=np.pi / 2)
    np.testing.assert_allclose(policy.select_action(None, info)[3], 0.3)


def test_push_ends_after_ten_pushes_or_a_hundred_steps():
    policy = push_policy()
    for i in range(10):
        assert not policy.done, i
        policy.select_action(None, push_info(SIDE))
    assert policy.done
    policy = push_policy()
    for i in range(100):
        assert not policy.done, i
        policy.select_action(None, push_info(np.array([0.3, -0.3, 0.3])))
    assert policy.done


def test_pick_place_takes_its_final_pose_from_the_generator(env):
    state = np.random.get_state()[1].copy()
    poses = []
    for seed in (0, 0, 1):
        policy = PickPlacePolicy(env=env, min_norm=0.4)
        policy.reset(np.random.default_rng(seed))
        poses.append((*policy._final_pos, policy._final_yaw))
    assert poses[0] == poses[1] != poses[2]
    np.testing.assert_array_equal(state, np.random.get_state()[1])


def test_pick_place_brings_cubes_to_their_targets(env, monkeypatch):
    def pick_place(rng, positions, p_stack):
        place = rules.free_place(rng, positions)
        return modes.single(rules.PICK_PLACE, int(rng.integers(2)), 2, place, rng)

    monkeypatch.setattr(env.law, "draw", pick_place)
    reached = []
    for seed in range(5):
        obs, info = env.reset(seed=seed)
        policy = PickPlacePolicy(env=env, min_norm=0.4)
        policy.reset(np.random.default_rng(seed))
        while not policy.done:
            obs, *_, info = env.step(policy.select_action(obs, info))
        reached.append(info["success"])
    assert sum(reached) >= 4


def collect(env, seed: int, steps: int = 60, settings=COLLECT) -> np.ndarray:
    """Return qpos and action of every step of one collected episode, as one matrix."""
    collector = make_world(mode="data_collection", num_cubes=2).collector(env, settings)
    obs, info = env.reset(seed=seed)
    collector.reset(obs, info, np.random.default_rng([seed, 1]))
    rows = []
    for _ in range(steps):
        action = collector.act(info)
        assert action.dtype == np.float32 and (np.abs(action) <= 1).all()
        obs, *_, info = env.step(action)
        collector.observe(obs, info)
        rows.append(np.concatenate((info["qpos"], action)))
    return np.array(rows)


def test_collection_depends_on_the_seeds_only(env):
    first = collect(env, seed=7)
    assert not np.array_equal(first, collect(env, seed=8))
    np.testing.assert_array_equal(first, collect(env, seed=7))
    fresh = make_world(mode="data_collection", num_cubes=2).make()
    np.testing.assert_array_equal(first, collect(fresh, seed=7))


class FakeEnv:
    """Counts targets; its `law` is all a collector asks besides."""

    law = modes.make_mode(make_world(mode="data_collection").settings)
    _arm_sampling_bounds = ((0, 0, 0), (1, 1, 1))

    def __init__(self) -> None:
        self.unwrapped = self
        self.p_stacks = []

    def set_new_target(self, return_info, p_stack):
        self.p_stacks.append(p_stack)

    def get_reset_info(self):
        return {"privileged/target_task": rules.PICK_PLACE}


def fake_collector(env: FakeEnv, **changes) -> ManipObjCollector:
    collector = ManipObjCollector(env, dataclasses.replace(COLLECT, **changes))
    info = {"privileged/target_task": rules.PUSH} | push_info(np.array([0.3, -0.3, 0.3]))
    collector.reset(None, info, np.random.default_rng(0))
    return collector


def test_noise_is_of_the_specified_size_and_play_has_none():
    collector = fake_collector(FakeEnv(), p_random_action=0.0)
    collector._policy = SimpleNamespace(select_action=lambda obs, info: np.zeros(5), done=False)
    actions = np.array([collector.act({}) for _ in range(4000)])
    spread = actions.std(0) / actions.std(0)[0]
    np.testing.assert_allclose(spread, [1, 1, 1, 3, 5], rtol=0.08)
    assert 0 < actions.std(0)[0] < 0.1
    calm = fake_collector(FakeEnv(), p_random_action=0.0, dataset_type="play")
    calm._policy = collector._policy
    assert not calm.act({}).any()


def test_random_actions_do_not_advance_the_policy():
    collector = fake_collector(FakeEnv(), p_random_action=1.0)
    actions = np.array([collector.act({}) for _ in range(1000)])  # the policy would need an info
    assert collector._policy._step == 0
    np.testing.assert_allclose(actions.std(0), 1 / 3**0.5, rtol=0.1)


def test_a_finished_policy_gets_a_new_target():
    env = FakeEnv()
    collector = fake_collector(env)
    push = collector._policy
    assert isinstance(push, PushPolicy)
    collector.observe(None, {})
    assert env.p_stacks == []
    push._done = True
    collector.observe(None, {})
    assert env.p_stacks == [0.5]
    assert isinstance(collector._policy, PickPlacePolicy)


def test_only_the_target_s_ghost_is_on_the_table(env):
    env.reset(seed=0)
    for _ in range(5):
        _, info = env.set_new_target()
        ghosts = env.data.mocap_pos[env._mocap_ids]
        cube = info["privileged/target_block"]
        np.testing.assert_array_equal(ghosts[cube], info["privileged/target_block_pos"])
        np.testing.assert_array_equal(ghosts[1 - cube], table.AWAY)


def test_a_stack_is_built_and_its_ghosts_stand_where_it_will():
    """Three cubes, without noise: the collector builds the whole stack."""
    world = make_world(mode="data_collection_stack", num_cubes=3)
    env = world.make().unwrapped
    calm = dataclasses.replace(COLLECT, p_random_action=0.0, action_noise=0.0)
    collector = world.collector(env, calm)
    obs, info = env.reset(seed=0)
    collector.reset(obs, info, np.random.default_rng(0))
    assert collector._p_stack == 0.9
    heights = []
    for _ in range(450):
        obs, *_, info = env.step(collector.act(info))
        collector.observe(obs, info)
        heights.append(max(info[f"privileged/block_{i}_pos"][2] for i in range(3)))
    assert max(heights[200:]) > 0.099
