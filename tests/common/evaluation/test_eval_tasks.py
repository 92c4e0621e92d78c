"""Fixed evaluation tasks: every episode has one, and results are told apart."""

import json

import numpy as np
import pytest
import torch

from agents.observations.kinds import make_observation
from common.data.normaliser import Normaliser
from common.evaluation.environments import EnvPool, Start
from common.evaluation.evaluate import Evaluation, evaluate
from common.evaluation.player import episode_seeds
from common.evaluation.results import metrics, save_results, table
from common.foundation.files import read_csv
from common.settings.config import compose, identity
from common.settings.schema import SettingError
from envs.make import make_world
from tests.helpers import scene_worlds
from tests.helpers.fake_agents import PointAgent
from tests.helpers.point_world import PointEnv, PointWorld, point_world

SCENE = "task=visual-scene-v0"


class TaskEnv(PointEnv):
    """An episode of one step whose info tells the task."""

    def reset(self, *, seed=None, options=None):
        self.task = options["task_id"]
        return super().reset(seed=seed, options=options)

    def step(self, action):
        obs, reward, _, _, info = super().step(action)
        return obs, reward, True, False, info | {"goal": self.task}


class TaskWorld(PointWorld):
    metrics = ("success", "goal")

    def simulator(self, pixels):
        return TaskEnv(self.settings)

    def summarise(self, history, rewards):
        goal = history[-1]["goal"]
        return {"success": float(goal > 2), "goal": float(goal)}


def run(episodes: int, tasks: tuple[int, ...], num_envs: int = 2) -> Evaluation:
    world = point_world(12, TaskWorld)
    observation = make_observation("ec_state", world)
    normaliser = Normaliser(torch.zeros(3), torch.ones(3))
    return evaluate(
        PointAgent(observation.shape),
        world,
        observation,
        normaliser,
        episodes=episodes,
        seed=7,
        num_envs=num_envs,
        workers=1,
        tasks=tasks,
    )


@pytest.fixture(scope="module")
def result() -> Evaluation:
    return run(2, (1, 3, 4))


def test_every_task_has_its_episodes_in_turn(result):
    assert [row["task"] for row in result.rows] == [1, 3, 4, 1, 3, 4]
    assert [row["goal"] for row in result.rows] == [1, 3, 4, 1, 3, 4]  # reached the environment
    assert [row["seed"] for row in result.rows] == [episode_seeds(7, i)[0] for i in range(6)]
    assert list(result.rows[0]) == ["episode", "seed", "task", "success", "goal"]
    assert result.env_steps == 6


def test_more_episodes_add_to_the_same_ones(result):
    assert run(3, (1, 3, 4), num_envs=5).rows[:6] == result.rows


def test_figures_overall_and_of_each_task(result):
    assert list(result.tasks) == [1, 3, 4]
    assert result.summary["success"].mean == pytest.approx(4 / 6)
    assert [result.tasks[task]["success"].mean for task in (1, 3, 4)] == [0, 1, 1]
    assert result.tasks[3]["success"].count == 2
    figures = result.figures()
    assert figures["task1_success"] == 0 and figures["task4_goal"] == 4
    assert list(figures)[:3] == ["success", "success_low", "success_high"]


def test_files_and_table_tell_the_tasks(result, tmp_path):
    save_results(tmp_path, result, {})
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["episodes"] == 6 and list(written["tasks"]) == ["1", "3", "4"]
    assert written["tasks"]["3"]["success"]["mean"] == 1
    rows = read_csv(tmp_path / "episodes.csv")
    assert [row["task"] for row in rows] == ["1", "3", "4"] * 2
    assert table(result).splitlines()[-1].split()[:4] == ["success,", "task", "4", "1.000"]


def test_worlds_without_tasks_know_nothing_of_them():
    world = point_world(12)
    observation = make_observation("ec_state", world)
    normaliser = Normaliser(torch.zeros(3), torch.ones(3))
    spread = {"episodes": 2, "seed": 7, "num_envs": 1, "workers": 1}
    result = evaluate(PointAgent(observation.shape), world, observation, normaliser, **spread)
    assert result.tasks == {} and "tasks" not in metrics(result)
    assert list(result.rows[0])[:3] == ["episode", "seed", "success"]
    assert not any(name.startswith("task") for name in result.figures())
    config = compose(["env_kwargs.manipobj.num_cubes=1", "eval_task_ids=[9]"])
    assert config.eval_tasks == () and "eval_task_ids" not in identity(config)


def test_settings_choose_the_scene_s_tasks():
    assert compose([SCENE]).eval_tasks == (1, 2, 3, 4, 5)
    chosen = compose([SCENE, "eval_task_ids=[4,2]"])
    assert chosen.eval_tasks == (4, 2) and identity(chosen)["eval_task_ids"] == (4, 2)
    for wrong in ("[6]", "[]", "[1,1]"):
        with pytest.raises(
            SettingError, match=r"eval_task_ids=.* allowed: a list of \[1,2,3,4,5\]"
        ):
            compose([SCENE, f"eval_task_ids={wrong}"])
    assert make_world(chosen).eval_tasks == (1, 2, 3, 4, 5)


def test_the_scene_starts_in_the_task_that_an_order_names():
    with EnvPool(scene_worlds.make_world(), num_envs=1, workers=1) as pool:
        goals = [pool.exchange({0: Start(0, 5, task=task)})[0].goal for task in (2, 4, 2)]
    np.testing.assert_array_equal(goals[0], goals[2])
    assert goals[0][15] > -0.1 and goals[1][15] < -2.7  # the drawer is closed, open
