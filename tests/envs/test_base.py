"""Tests of the interface of worlds, on one without goals whose actions are discrete."""

import numpy as np
import pytest

from common.foundation.registry import WORLDS, load
from envs.base import GoalWorld, World
from tests.helpers import manipobj_worlds
from tests.helpers.corridor_world import CELLS, MOVES, corridor_world
from tests.helpers.datasets import record

STAY, LEFT, RIGHT = np.eye(3, dtype=np.float32)


def test_one_hot_rows_become_the_integers_of_a_discrete_space():
    """Also where they do not start at zero; the time limit truncates."""
    env = corridor_world(max_episode_steps=2 * CELLS).make()
    env.reset(seed=0)
    cells = [env.step(row)[0].item() for row in (*[LEFT] * CELLS, RIGHT, RIGHT, STAY, LEFT)]
    assert cells[CELLS - 1 :] == [0, 1, 2, 2, 1]
    ends = [env.step(row)[3] for row in (STAY, STAY)]
    assert ends == [False, True]


def test_a_world_without_goals_is_collected_with_one_hot_rows(tmp_path):
    """The stored rows and those of the next moment fit together."""
    dataset = record(tmp_path, "corridor", corridor_world(), episodes=3)
    episodes = list(dataset.stream(["actions", "terminals", "state_observations"]))
    arrays = {name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]}
    actions = arrays["actions"]
    assert actions.shape == (36, 3) and set(map(tuple, actions)) == set(map(tuple, np.eye(3)))
    moves = np.array(list(MOVES.values()))[actions.argmax(axis=1)]
    cells = arrays["state_observations"][:, 0]
    within = ~arrays["terminals"][:-1]
    np.testing.assert_array_equal(
        cells[1:][within], (cells + moves).clip(0, CELLS - 1)[:-1][within]
    )


def test_the_headline_is_one_of_the_metrics():
    world = corridor_world()
    assert not isinstance(world, GoalWorld) and world.headline == "episode_reward"
    assert world.summarise([{}] * 2, [0.0, 1.0])[world.headline] == 1.0


@pytest.mark.parametrize("place", [*WORLDS.values(), "envs.ogbench.world:OGBenchWorld"])
def test_our_worlds_have_goals_and_are_judged_by_success(place: str):
    world: type[World] = load(place)
    assert issubclass(world, GoalWorld)
    assert world.headline == "success" and "success" in world.metrics


def test_metrics_of_an_episode_are_those_of_its_last_step_or_of_all_of_it():
    history = [
        {"success": s, "success_frac": f, "was_agent_object_interaction": m}
        for s, f, m in [(True, 1.0, True), (False, 0.5, False), (False, 0.25, False)]
    ]
    world = manipobj_worlds.make_world()
    summary = world.summarise(history, [-1.0, -0.5, -1.0])
    assert tuple(summary) == world.metrics
    assert summary == {
        "success": 0.0,
        "success_frac": 0.25,
        "episode_reward": -2.5,
        "episode_length": 3.0,
        "interaction_rate": pytest.approx(1 / 3),
    }
