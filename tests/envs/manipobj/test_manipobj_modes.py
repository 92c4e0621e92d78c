"""Modes of the cube environment: goals, their judgement, and the targets of the collections."""

import mujoco
import numpy as np
import pytest

from envs.manipobj import modes, rules
from envs.tabletop import table
from tests.helpers.manipobj_worlds import make_world

SPOTS = [[0.3, -0.2], [0.3, 0.2], [0.55, -0.2], [0.55, 0.2], [0.425, 0.0]]
FLAT = np.array([[0.32, -0.2, 0.02], [0.4, 0.0, 0.02], [0.5, 0.2, 0.02]])  # three cubes apart


def law(name: str, num_cubes: int = 3, num_colors: int = 5, **changes) -> modes.Mode:
    world = make_world(mode=name, num_cubes=num_cubes, num_colors=num_colors, **changes)
    return modes.make_mode(world.settings)


def goals(name: str, num_cubes: int, draws: int = 50, **numbers) -> list[np.ndarray]:
    rng, mode = np.random.default_rng(0), law(name, num_cubes, **numbers)
    positions, yaws = zip(*(mode.place(rng) for _ in range(draws)), strict=True)
    assert np.shape(yaws) == (draws, num_cubes)
    if draws * num_cubes >= 100:  # uniform in [0, 2 pi), all of them
        np.testing.assert_allclose(np.mean(yaws, 0), np.pi, atol=1.3)
        assert 0 <= np.min(yaws) < 0.4 and 5.9 < np.max(yaws) < 2 * np.pi
    return list(positions)


def assert_bases_apart(bases: np.ndarray) -> None:
    assert (bases[:, :2] >= [0.30, -0.30]).all() and (bases[:, :2] <= [0.55, 0.30]).all()
    apart = np.linalg.norm(bases[:, None, :2] - bases[None, :, :2], axis=-1)
    assert (apart[np.triu_indices(len(bases), 1)] > 0.0565685).all()


@pytest.mark.parametrize("num_cubes", [1, 2, 3, 4, 5, 6])
def test_stacks_of_two_and_of_all(num_cubes):
    for positions in goals("task_stack", num_cubes):
        bottoms, tops = positions[::2], positions[1::2]
        assert_bases_apart(bottoms)
        np.testing.assert_allclose(bottoms[:, 2], 0.02)
        np.testing.assert_allclose(tops, bottoms[: len(tops)] + np.array([0, 0, 0.04]))
    for positions in goals("task_stack_all", num_cubes):
        assert_bases_apart(positions[:1])
        np.testing.assert_allclose(
            positions - positions[0], [[0, 0, 0.04 * i] for i in range(num_cubes)]
        )
        assert positions[0, 2] == 0.02


@pytest.mark.parametrize(("num_cubes", "num_colors"), [(3, 5), (5, 5), (6, 4), (2, 1)])
def test_spots_of_the_colours(num_cubes, num_colors):
    positions = goals("task_sort", num_cubes, draws=1, num_colors=num_colors)[0]
    near = min(num_cubes, num_colors)
    np.testing.assert_allclose(positions[:near, :2], SPOTS[:near])
    np.testing.assert_allclose(positions[:, 2], 0.02)
    assert (positions[near:, :2] >= 2).all()
    for random in (True, False):
        mode = law("task_sort", num_cubes, num_colors, random_colors=random)
        colors = mode.colors(np.random.default_rng(0))
        assert colors.tolist() == [i % num_colors for i in range(num_cubes)]


@pytest.mark.parametrize("name", ["task", "task_stack_all", "data_collection_stack"])
def test_colours_are_distinct_or_in_order(name):
    mode, rng = law(name, 4), np.random.default_rng(0)
    assert law(name, 4, random_colors=False).colors(rng).tolist() == [0, 1, 2, 3]
    drawn = np.array([mode.colors(rng) for _ in range(300)])
    assert all(len(set(colors)) == 4 for colors in drawn.tolist())
    np.testing.assert_allclose(np.bincount(drawn[:, 0]) / 300, 1 / 6, atol=0.07)


@pytest.mark.parametrize(
    ("name", "cubes", "settled"),
    [("task", 6, 2e-4), ("task_stack", 4, 2e-3), ("task_stack_all", 4, 2e-3)],
)
def test_goals_stand_still_and_starts_lie_on_the_table(name, cubes, settled):
    env = make_world(mode=name, num_cubes=cubes).make().unwrapped
    for seed in range(6):
        _, info = env.reset(seed=seed)
        targets = env.data.mocap_pos[env._mocap_ids]
        goal = info["state_goal"][6:].reshape(cubes, 5)[:, :3] / 10 + [0.425, 0, 0]
        assert np.linalg.norm(goal - targets, axis=1).max() < settled
        np.testing.assert_array_equal(info["goal"], info["state_goal"])
        assert info["goal_rendered"] is None
        starts = np.array([info[f"privileged/block_{i}_pos"] for i in range(cubes)])
        for positions in (starts, targets) if name == "task" else (starts,):
            np.testing.assert_allclose(positions[:, 2], 0.02)
            assert_bases_apart(positions)
        assert not env.step(np.zeros(5))[4]["success"]


def put(env, positions: np.ndarray) -> tuple:
    """Put the cubes at rest at `positions` (N, 3) and return what the next step returns."""
    env._place_cubes(positions, np.zeros(len(positions)))
    env.data.qvel[:] = 0
    mujoco.mj_forward(env.model, env.data)
    return env.step(np.zeros(5))


def test_a_stack_counts_when_every_cube_is_at_its_height():
    env = make_world(mode="task_stack_all").make().unwrapped
    env.reset(seed=0)
    targets = env.data.mocap_pos[env._mocap_ids].copy()
    _, reward, *_, info = put(env, targets)
    assert info["success"] and info["success_frac"] == 1 and reward == 0
    turned = targets[[2, 0, 1]]  # each cube in another's slot, cube 0 two slots away
    _, reward, *_, info = put(env, turned)
    assert not info["success"] and reward == -1
    beside = targets + np.array([[0, 0, 0], [0.05, 0, -0.04], [0.1, 0, -0.08]])
    assert put(env, beside)[4]["success_frac"] == pytest.approx(1 / 3)


def test_sorting_counts_the_way_to_the_colour_s_spot():
    env = make_world(mode="task_sort", num_cubes=4, num_colors=2, reward_mode="step").make()
    env = env.unwrapped
    env.reset(seed=0)
    sorted_ = np.array([[0.3, -0.2, 0.02], [0.3, 0.2, 0.02], [0.4, -0.1, 0.02], [0.4, 0.1, 0.02]])
    _, reward, *_, info = put(env, sorted_)  # 0.141 m from the spots
    assert info["success"] and reward == 0
    crossed = sorted_[[0, 1, 3, 2]]
    _, reward, *_, info = put(env, crossed)
    assert not info["success"] and info["success_frac"] == reward + 1 == 0.5
    np.testing.assert_array_equal(env._cube_colors[:2], env._cube_colors[2:])


@pytest.mark.parametrize(
    ("name", "camera", "collection"),
    [
        ("task", "side_pixels", "data_collection"),
        ("task_sort", "side_pixels", "data_collection"),
        ("task_stack", "side_pixels_stack", "data_collection_stack"),
        ("task_stack_all", "side_pixels_stack", "data_collection_stack"),
        ("data_collection", "side_pixels", "data_collection"),
        ("data_collection_stack", "side_pixels_stack", "data_collection_stack"),
    ],
)
def test_cameras_and_collections_of_the_modes(name, camera, collection):
    world = make_world(mode=name, num_colors=5, multiview=True)
    assert world.make().unwrapped.cameras == ("front_pixels", camera)
    assert world.collect_overrides() == [
        "task=manipobj-v0",
        f"env_kwargs.manipobj.mode={collection}",
        "env_kwargs.manipobj.num_cubes=3",
    ]


def test_every_mode_is_tested_here():
    assert list(modes.MODES) == [
        "task",
        "task_stack",
        "task_stack_all",
        "task_sort",
        "data_collection",
        "data_collection_stack",
    ]


# Targets of the collections.


def test_top_cubes_carry_nothing():
    positions = np.array([[0.4, 0.0, 0.02], [0.41, 0.01, 0.06], [0.5, 0.1, 0.02]])
    assert table.top_cubes(positions) == [1, 2]
    positions[1, 0] += 0.05
    assert table.top_cubes(positions) == [0, 1, 2]


@pytest.mark.parametrize("p_push", [0.0, 0.2, 0.7])
def test_single_targets_follow_their_law(p_push):
    rng, mode = np.random.default_rng(0), law("data_collection", p_push=p_push)
    positions = np.array([[0.4, 0.0, 0.02], [0.4, 0.0, 0.06], [0.5, 0.1, 0.02]])
    targets = [mode.draw(rng, positions, 0.5) for _ in range(1000)]
    assert {target.cube for target in targets} == {1, 2}
    assert np.mean([t.task == rules.PUSH for t in targets]) == pytest.approx(p_push, abs=0.05)
    stacked = [t for t in targets if t.position[2] > 0.03]
    assert len(stacked) / len(targets) == pytest.approx(0.5, abs=0.06)
    for target in stacked:
        base = {1: 2, 2: 1}[target.cube]
        np.testing.assert_allclose(target.position, positions[base] + [0, 0, 0.04])
    for target in targets:
        if target.position[2] < 0.03:
            apart = np.linalg.norm(positions[:, :2] - target.position[:2], axis=1)
            assert apart.min() > 0.0565685
    alone = law("data_collection", num_cubes=1)
    single = [alone.draw(rng, positions[:1], 0.5) for _ in range(50)]
    assert {target.position[2] for target in single} == {0.02}


def stacking(seed: int = 0, num_cubes: int = 3) -> tuple[modes.BuildStacks, modes.Target]:
    """Return a collection that has just started a stack, and the stack's first target."""
    mode = law("data_collection_stack", num_cubes)
    mode.reset()
    start = np.array([[0.3 + 0.04 * i, 0.3, 0.02] for i in range(num_cubes)])
    return mode, mode.draw(np.random.default_rng(seed), start, 1.0)


def bottom_up(target: modes.Target) -> np.ndarray:
    """Return the cubes of a stack in the order of their slots' heights."""
    return np.argsort(target.positions[:, 2])


def test_a_stack_is_of_all_cubes_in_random_order_on_a_free_place():
    orders = []
    for seed in range(60):
        _, target = stacking(seed)
        order = bottom_up(target)
        assert target.task == rules.PICK_PLACE and target.cube == order[0]
        np.testing.assert_allclose(target.positions[order, 2], [0.02, 0.06, 0.10])
        np.testing.assert_array_equal(target.positions[:, :2], target.positions[[0] * 3, :2])
        start = np.array([[0.3 + 0.04 * i, 0.3] for i in range(3)])
        assert np.linalg.norm(start - target.position[:2], axis=1).min() > 0.0565685
        assert len(set(target.yaws)) == 3
        orders.append(tuple(order))
    assert len(set(orders)) == 6


def test_a_finished_policy_goes_on_to_the_next_cube_and_only_then():
    mode, target = stacking()
    order, rng = bottom_up(target), np.random.default_rng(1)
    cubes = FLAT.copy()
    cubes[order[0]] = target.positions[order[0]]
    assert mode.follow(cubes, target.cube) == order[0]  # in place, but the policy is not done
    target = mode.draw(rng, cubes, 0.0)
    assert target.cube == order[1]
    cubes[order[1]] = target.position
    assert mode.follow(cubes, target.cube) == order[1]
    assert mode.draw(rng, cubes, 0.0).cube == order[2]


def test_a_cube_that_leaves_its_slot_is_pursued_at_once():
    mode, target = stacking()
    order, cubes = bottom_up(target), FLAT.copy()
    cubes[order[0]] = target.positions[order[0]]
    cube = mode.draw(np.random.default_rng(1), cubes, 0.0).cube
    assert cube == order[1]
    cubes[order[0], 0] += 0.019
    assert mode.follow(cubes, cube) == order[1]
    cubes[order[0], 0] += 0.002
    assert mode.follow(cubes, cube) == order[0]
    cubes[order[0]] = target.positions[order[0]]
    assert mode.follow(cubes, order[0]) == order[0]  # not forward again before the policy is done


def test_a_complete_stack_ends_and_leaves_the_target_as_it_is():
    mode, target = stacking()
    top = bottom_up(target)[-1]
    assert mode.follow(target.positions, top) == top
    after = mode.draw(np.random.default_rng(1), target.positions, 0.0)
    assert after.cube == top  # the only cube that carries no other
    assert after.position[2] == 0.02
    np.testing.assert_array_equal(np.delete(after.positions, top, axis=0), [table.AWAY] * 2)


def test_a_stack_is_given_up_after_five_hundred_steps():
    mode, target = stacking()
    for _ in range(500):
        assert mode.follow(FLAT, target.cube) == target.cube
    rng = np.random.default_rng(0)
    assert mode.draw(rng, FLAT, 0.0).cube == target.cube  # still building
    assert mode.follow(FLAT, target.cube) == target.cube
    alone = mode.draw(rng, FLAT, 0.0)
    assert (alone.positions[:, 2] < 0).sum() == 2
    again = mode.draw(rng, FLAT, 1.0)
    assert (again.positions[:, 2] > 0).all()
    assert mode.follow(FLAT, again.cube) == again.cube  # and counts from zero
    assert (mode.draw(rng, FLAT, 0.0).positions == again.positions).all()


def test_no_stack_outlives_its_episode():
    mode, _ = stacking()
    mode.reset()
    assert mode.follow(FLAT, 1) == 1
    assert (mode.draw(np.random.default_rng(0), FLAT, 0.0).positions[:, 2] < 0).sum() == 2


def test_the_environment_forgets_the_stack_and_follows_it():
    env = make_world(mode="data_collection_stack").make().unwrapped
    env.reset(seed=0)
    env.set_new_target(p_stack=1.0)
    ghosts = env.data.mocap_pos[env._mocap_ids].copy()
    order = np.argsort(ghosts[:, 2])
    base = ghosts[order[0]]
    away = base + np.outer([1, 2, 3], [0, -0.1 if base[1] > 0 else 0.1, 0])
    started = away.copy()
    started[order[0]] = base
    put(env, started)
    _, info = env.set_new_target(p_stack=0.0)
    assert info["privileged/target_block"] == order[1]
    np.testing.assert_array_equal(info["privileged/target_block_pos"], ghosts[order[1]])
    info = put(env, away)[4]
    assert info["privileged/target_block"] == order[0]
    np.testing.assert_array_equal(info["privileged/target_block_pos"], base)
    env.reset(seed=1)
    env.set_new_target(p_stack=0.0)
    assert not np.array_equal(env.data.mocap_pos[env._mocap_ids], ghosts)


@pytest.mark.parametrize(
    ("num_cubes", "low", "high"),
    [(1, 0, 0), (2, 0, 0.25), (3, 0.9, 0.9), (4, 0.1, 0.5), (5, 0.5, 0.5)],
)
def test_p_stack_of_an_episode(num_cubes, low, high):
    rng, mode = np.random.default_rng(0), law("data_collection_stack", num_cubes)
    drawn = [mode.p_stack(rng) for _ in range(200)]
    assert low <= min(drawn) <= low + 0.02 and high - 0.02 <= max(drawn) <= high
    assert law("data_collection", num_cubes).p_stack(rng) == (0.5 if num_cubes > 1 else 0)


@pytest.mark.parametrize("name", modes.TARGETS)
def test_p_stack_can_be_given(name):
    mode = law(name, 2, p_stack=0.8)
    assert [mode.p_stack(np.random.default_rng(seed)) for seed in range(3)] == [0.8] * 3


def test_one_cube_makes_no_stack():
    mode = law("data_collection_stack", 1)
    mode.reset()
    targets = [mode.draw(np.random.default_rng(i), FLAT[:1], 1.0) for i in range(20)]
    assert all(not len(mode._order) and target.cube == 0 for target in targets)
