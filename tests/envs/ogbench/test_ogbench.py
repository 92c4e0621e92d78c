"""OGBench's own environments and files: names, episodes, vectors, rewards, training, evaluation."""

import csv
import shlex
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

import collect
import train
from agents.observations.kinds import make_observation
from common.foundation.errors import UserError
from common.runs.loading import load_training_data
from common.runs.setup import make_setup
from common.settings.config import Config, compose, identity
from common.training.engine import make_updates
from datasets.command_line import world_of
from datasets.inspect import report
from datasets.npz_dataset import NpzDataset, open_dataset
from envs.make import make_world
from envs.ogbench.tasks import TASKS
from envs.ogbench.world import OGBenchWorld
from envs.rendering import rendering_problem
from tests.conftest import TINY
from tests.helpers.ogbench_files import LENGTH, record

CUBES, SCENE, PUZZLE = NAMES = ("cube-double-play-v0", "scene-play-v0", "puzzle-3x3-noisy-v0")
VISUAL = "visual-cube-single-play-v0"
SIZES = {CUBES: (37, 28), SCENE: (40, 25), PUZZLE: (55, 23)}  # of states and qpos
SMALL = (
    *TINY,
    "train_dataset_name=null",
    "steps=2",
    "arch_mlp.h_dim=8",
    "hiql.subgoal_k=5",
    "max_episode_steps=3",
    "eval_task_ids=[4,2]",
)


def config(task: str, *overrides: str) -> Config:
    return compose(["ogbench=true", f"task={task}", *overrides])


def world_of_task(task: str, *overrides: str) -> OGBenchWorld:
    return make_world(config(task, *overrides))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A home folder with files where OGBench puts them."""
    home = tmp_path_factory.mktemp("home")
    for name in NAMES:
        record(home / ".ogbench" / "data", name)
    return home


@pytest.fixture
def files(home, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(home))
    return home / ".ogbench" / "data"


@pytest.fixture(scope="module")
def envs() -> dict[str, gym.Env]:
    """An environment of each kind; compiling one takes half a second."""
    return {name: world_of_task(name).make() for name in NAMES}


# Names and settings.


def test_the_table_is_ogbench_s_own():
    robots = {
        name
        for name in gym.registry
        if name.removeprefix("visual-").startswith(("cube-", "scene-", "puzzle-"))
        and "singletask" not in name
    }
    assert {task.environment for task in TASKS.values()} == robots
    for task in TASKS.values():
        assert gym.spec(task.environment).max_episode_steps == task.table.steps
        assert task.visual == (gym.spec(task.environment).kwargs.get("ob_type") == "pixels")
    assert "visual-scene-play-v0" in TASKS and "visual-cube-octuple-play-v0" not in TASKS


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["ogbench=true", "task=cube-duble-play-v0"], "not known; .*mean cube-double-play-v0"),
        (["ogbench=true"], "task=manipobj-v0 is not known; allowed: ENV-DATA-v0 and visual-ENV"),
        (["ogbench=true", "task=cube-double-v0"], "task=cube-double-v0 is not known"),
        (["task=scene-play-v0"], "task=scene-play-v0 is one of OGBench's; add ogbench=true"),
        (["ogbench=true", f"task={CUBES}", "eval_task_ids=[6]"], r"a list of \[1,2,3,4,5\]"),
    ],
)
def test_wrong_names_get_one_line(overrides, message):
    with pytest.raises(UserError, match=message) as error:
        compose(overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("task", "obs", "message"),
    [
        (PUZZLE, "ec_state", f"obs=ec_state is not possible: task={PUZZLE} is not made of"),
        ("visual-scene-play-v0", "state", "has images only; use obs=rgb, or the task without"),
        ("visual-cube-single-play-v0", "ec_state_gen", "has images only"),
    ],
)
def test_what_a_task_does_not_show_is_refused(task, obs, message):
    with pytest.raises(UserError, match=message) as error:
        make_observation(obs, world_of_task(task))
    assert "\n" not in str(error.value)


def test_images_are_of_visual_tasks_alone():
    assert "visual-" in world_of_task(SCENE).observation_problem("image", pixels=True)
    assert world_of_task("visual-scene-play-v0").observation_problem("image", True) is None
    with pytest.raises(UserError, match="multiview=true"):
        world_of_task(SCENE, "multiview=true")


def test_null_is_what_the_world_says():
    chosen = config(SCENE)
    assert (chosen.train_dataset_name, chosen.max_episode_steps) == (SCENE, 750)
    assert chosen.raw["train_dataset_name"] == SCENE
    given = config(SCENE, "train_dataset_name=mine", "max_episode_steps=9")
    assert (given.train_dataset_name, given.max_episode_steps) == ("mine", 9)
    assert config("cube-octuple-play-v0").max_episode_steps == 1500
    ours = compose(["task=visual-scene-v0"])
    assert (ours.train_dataset_name, ours.max_episode_steps) == ("visual-scene-noisy-v0", 1000)
    assert compose().train_dataset_name == "ppp-cube-noisy-v0"


def test_the_task_tells_runs_apart():
    known = identity(config(SCENE))
    assert known["task"] == SCENE and known["env_kwargs.ogbench.terminate_at_goal"] is True
    assert "ogbench" not in known


# Episodes.


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_reproduces_all_of_an_episode(name, envs):
    before = np.random.get_state()[1].copy()  # global: nobody draws from it
    results = []
    for env in (envs[name], world_of_task(name).make()):
        env.reset(seed=3)  # what came before has no influence
        obs, info = env.reset(seed=7, options={"task_id": 4})
        steps = [env.step(np.full(5, 0.3))[0] for _ in range(3)]
        results.append(np.concatenate([obs, info["goal"], *steps]))
    np.testing.assert_array_equal(*results)
    np.testing.assert_array_equal(before, np.random.get_state()[1])
    other = envs[name].reset(seed=8, options={"task_id": 4})[1]
    assert not np.array_equal(other["goal"], info["goal"])


def test_a_task_that_is_not_given_comes_from_the_seed(envs):
    env = envs[CUBES]
    drawn = []
    for seed in (*range(8), *range(8)):
        env.reset(seed=seed)
        drawn.append(env.unwrapped.cur_task_id)
    assert drawn[:8] == drawn[8:] and len(set(drawn)) > 1


@pytest.mark.filterwarnings("ignore:.*precision lowered")  # about OGBench's action spaces
@pytest.mark.parametrize("name", NAMES)
def test_starts_and_steps_are_ogbench_s(name, envs):
    theirs = gym.make(TASKS[name].environment, disable_env_checker=True).unwrapped
    ours, options = envs[name].unwrapped, {"task_id": 3}
    start, info = ours.reset(seed=5, options=options)
    expected, _ = theirs.reset(options, seed=5)
    # Joints and poses; velocities and contact are left from the random steps before the goal.
    same = np.r_[0:6, 12:18, 19 : len(start)]
    np.testing.assert_allclose(start[same], expected[same], atol=1e-9)
    np.testing.assert_array_equal(info["state_obs"], start)
    assert ours.cur_task_id == 3 and info["state_goal"].shape == start.shape
    for _ in range(5):  # the contact forces of both are computed by steps
        action = np.array([0.2, -0.3, -1.0, 0.5, 1.0])
        (obs, reward, done, _, info), other = ours.step(action), theirs.step(action)
        np.testing.assert_allclose(obs[same], other[0][same], atol=1e-2)
        assert (reward, done, info["success"]) == (other[1], other[2], other[4]["success"])


def to_goal(env) -> dict[str, np.ndarray]:
    """Columns (1, ...) of a row in which everything is where the running task wants it."""
    qpos, extra = env.data.qpos.copy(), {}
    for i in range(env.cubes):
        qpos[14 + 7 * i : 17 + 7 * i] = env.data.mocap_pos[env._cube_target_mocap_ids[i]]
    if hasattr(env, "_target_button_states"):
        extra["button_states"] = torch.from_numpy(env._target_button_states)[None]
    if hasattr(env, "_target_drawer_pos"):
        qpos[-2:] = env._target_drawer_pos, env._target_window_pos
    return {"qpos": torch.from_numpy(qpos)[None].float(), **extra}


@pytest.mark.parametrize("name", NAMES)
def test_rewards_of_rows_are_ogbench_s_test_of_success(name, envs):
    world, env = world_of_task(name), envs[name].unwrapped
    env.reset(seed=1, options={"task_id": 5})
    goal, rng = to_goal(env), np.random.default_rng(0)
    found = []
    for i in range(60):
        row = {column: value.clone() for column, value in goal.items()}
        row["qpos"] += torch.from_numpy(rng.normal(0, 0.016, row["qpos"].shape))
        if i % 3 == 0 and "button_states" in row:
            row["button_states"][0, i % 2] ^= 1
        extra = [row["button_states"][0].numpy()] if "button_states" in row else []
        env.set_state(row["qpos"][0].numpy(), np.zeros(env.model.nv), *extra)
        reward = world.reward(row, goal)
        assert reward.shape == (1,) and reward.dtype == torch.float32
        assert float(reward) == float(np.hstack(env._compute_successes()).all()) - 1
        found.append(float(reward))
    assert len(set(found)) == 2


def test_success_ends_an_episode_and_is_that_of_its_last_step(envs):
    world, env = world_of_task(PUZZLE), envs[PUZZLE]
    env.reset(seed=1, options={"task_id": 1})
    table = env.unwrapped
    _, reward, done, _, first = env.step(np.zeros(5))
    assert not done and not first["success"] and 0 < first["success_frac"] < 1
    table._cur_button_states = table._target_button_states.copy()
    _, reward, done, _, last = env.step(np.zeros(5))
    assert done and last["success"] and last["success_frac"] == 1 and reward == 1
    figures = world.summarise([first, last], [0.0, 1.0])
    expected = {"success": 1.0, "success_frac": 1.0, "episode_reward": 1.0, "episode_length": 2.0}
    assert figures == expected and tuple(figures) == world.metrics


# Entities.


def states(files: Path, name: str) -> torch.Tensor:
    return torch.from_numpy(np.load(files / f"{name}.npz")["observations"])


@pytest.mark.parametrize("name", [CUBES, SCENE])
@pytest.mark.parametrize("obs", ["ec_state", "ec_state_gen"])
def test_entities_hold_the_whole_state(name, obs, files):
    world = world_of_task(name)
    observation = make_observation(obs, world)
    raw = states(files, name)
    identities = observation.identities(len(raw), torch.Generator().manual_seed(0))
    rows = observation.encode(raw, identities)
    assert rows.shape == (len(raw), *observation.shape)
    torch.testing.assert_close(observation.decode(rows), raw)
    batched = world.state_entities(raw.unflatten(0, (3, LENGTH)))
    torch.testing.assert_close(world.entities_state(batched), raw.unflatten(0, (3, LENGTH)))


def test_cubes_are_alike_and_others_are_where_the_simulator_has_them(files, envs):
    raw = states(files, CUBES)
    swapped = torch.cat([raw[:, :19], raw[:, 28:], raw[:, 19:28]], dim=1)
    world = world_of_task(CUBES)
    assert torch.equal(world.state_entities(swapped), world.state_entities(raw)[:, [0, 2, 1]])
    assert (world.max_identities, world.entity_names) == (9, ("agent", "cube_0", "cube_1"))
    assert world_of_task("cube-octuple-play-v0").max_identities == 9  # one agent serves them all
    scene, env = world_of_task(SCENE), envs[SCENE].unwrapped
    _, info = env.reset(seed=2, options={"task_id": 2})
    rows = scene.state_entities(torch.from_numpy(info["state_obs"]))
    names = ("proprio/effector_pos", "privileged/block_0_pos")
    places = [info[name] for name in names] + [env.data.site_xpos[i] for i in env._button_site_ids]
    places += [info[f"privileged/{name}_handle_pos"] for name in ("drawer", "window")]
    np.testing.assert_allclose(rows[:, :3], (np.array(places) - [0.425, 0, 0]) * 10, atol=0.02)
    assert scene.entity_names[2:] == ("button_0", "button_1", "drawer", "window")


def test_positions_of_objects(files):
    raw = states(files, SCENE)[0]
    world = world_of_task(SCENE)
    pressed = raw.clone()
    pressed[28:30] = 1 - raw[28:30]  # off and on of the first button
    moved = (world.entity_positions(pressed) - world.entity_positions(raw)).norm(dim=-1)
    assert (moved > 0.04).tolist() == [False, True, False, False, False]
    turned = raw.clone()
    turned[22:28] = 0.5  # the cube's orientation
    assert torch.equal(world.entity_positions(turned), world.entity_positions(raw))
    with pytest.raises(UserError, match="does not tell the positions"):
        world_of_task(PUZZLE).entity_positions(torch.zeros(55))


# Data.


@pytest.mark.parametrize("name", NAMES)
def test_files_are_found_where_ogbench_puts_them(name, files, tmp_path):
    world = world_of_task(name)
    dataset = open_dataset(tmp_path, name, world)
    assert isinstance(dataset, NpzDataset) and str(dataset) == str(files / f"{name}.npz")
    assert dataset.lengths().tolist() == [LENGTH] * 3
    state_dim, positions = SIZES[name]
    assert dataset.column("observations") == ((state_dim,), np.dtype("float32"))
    assert dataset.column("qpos")[0] == (positions,)
    assert dataset.header["pixels"] is False and world.compatible(dataset.header) is None
    assert max(end for _, end in dataset.header["qpos_layout"].values()) == positions
    again = world_of(dataset.header)
    assert (again.name, again.settings, again.max_episode_steps) == (name, world.settings, LENGTH)
    lines = list(report(dataset, world, "train"))
    assert any(line.split()[:2] == ["environment", name] for line in lines)


def test_data_of_another_kind_serve_and_of_another_environment_do_not(files, tmp_path):
    noisy = world_of_task("scene-noisy-v0")
    header = open_dataset(tmp_path, SCENE, world_of_task(SCENE)).header
    assert noisy.compatible(header) is None
    assert "not of cube-double" in world_of_task(CUBES).compatible(header)
    with pytest.raises(UserError, match=rf"\(40,\).* ogbench=true task={CUBES} it is \(37,\)"):
        open_dataset(tmp_path, SCENE, world_of_task(CUBES))
    with pytest.raises(UserError, match="images are"):
        open_dataset(tmp_path, SCENE, world_of_task("visual-scene-play-v0"))


def test_data_dir_goes_first(files, tmp_path):
    world = world_of_task(PUZZLE)
    here = record(tmp_path, PUZZLE, episodes=1)
    assert str(open_dataset(tmp_path, PUZZLE, world)) == str(here)
    (tmp_path / PUZZLE).mkdir()  # a folder there: it is looked at, not the files
    with pytest.raises(UserError, match=f"no dataset {PUZZLE} under"):
        open_dataset(tmp_path, PUZZLE, world)


def test_a_missing_file_names_the_command_that_gets_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"no file cube-.* in .*\.ogbench/data; get") as error:
        train.run(config(CUBES, f"data_dir={tmp_path}", f"output_dir={tmp_path}"))
    assert "\n" not in str(error.value)
    command = shlex.split(str(error.value).split("`")[1])
    assert command[:2] == ["python", "-c"]
    assert command[2] == f"import ogbench; ogbench.download_datasets(['{CUBES}'])"
    with pytest.raises(UserError, match=f"task={CUBES} collects nothing; get its data with"):
        collect.run(config(CUBES, "dataset_name=x"))


# Frames.


def test_frames_are_ogbench_s_and_show_subgoals(files, envs):
    if problem := rendering_problem():
        pytest.skip(problem)
    env, world = envs[CUBES], world_of_task(CUBES)
    _, info = env.reset(seed=1, options={"task_id": 1, "render_goal": True})
    frame = env.unwrapped.frame()
    assert info["goal_rendered"].shape == frame.shape == (200, 200, 3)
    assert not np.array_equal(frame, env.unwrapped.subgoal_frame(2 * info["state_goal"]))
    np.testing.assert_array_equal(frame, env.unwrapped.frame())
    row = open_dataset(files, CUBES, world).read_episode("train", 0, ["qpos"])
    assert not np.array_equal(frame, world.replay(env, {"qpos": row["qpos"][0]}))
    visual = world_of_task("visual-puzzle-3x3-play-v0").make(pixels=True)
    obs, info = visual.reset(seed=1, options={"task_id": 1})
    assert obs.shape == info["goal"].shape == (64, 64, 3) and obs.dtype == np.uint8
    visual.close()
    env.close()


# Training and evaluation.


@pytest.mark.parametrize(
    ("task", "agent", "obs", "reward"),
    [
        (CUBES, "iql", "state", "env"),
        (CUBES, "hiql", "state", "unsupervised"),
        (CUBES, "iql", "ec_state", "unsupervised"),
        (CUBES, "sgiql", "ec_state_gen", "unsupervised"),
        (SCENE, "hiql", "state", "unsupervised"),
        (SCENE, "iql", "ec_state", "unsupervised"),
        (SCENE, "sgiql", "ec_state", "env"),
        (PUZZLE, "iql", "state", "unsupervised"),
        (PUZZLE, "hiql", "state", "env"),
    ],
)
def test_every_agent_learns_from_the_files(task, agent, obs, reward, files, tmp_path):
    chosen = config(task, *SMALL, f"agent={agent}", f"obs={obs}", f"reward={reward}")
    world = make_world(chosen)
    observation = make_observation(chosen.obs, world)
    device = torch.device("cpu")
    buffer, normaliser = load_training_data(chosen, world, observation, device)
    setup = make_setup(chosen, world, observation, normaliser)
    sums = {}
    updates = make_updates(chosen, setup.agent, buffer, sums)
    for step in (1, 2):
        updates.run(step)
    assert sums and all(bool(torch.isfinite(value)) for value in sums.values())
    rewards = set(buffer.sample(200, torch.Generator().manual_seed(0)).reward.tolist())
    # Random actions move nothing in so short a time: all rows are successes with all goals.
    assert rewards == ({0.0} if reward == "env" else {0.0, -1.0})


@pytest.mark.parametrize(
    ("task", "agent", "obs"), [(SCENE, "sgiql", "ec_state"), (PUZZLE, "hiql", "state")]
)
def test_a_run_tells_the_results_of_each_task(task, agent, obs, files, tmp_path):
    train.run(config(task, *SMALL, f"agent={agent}", f"obs={obs}", f"output_dir={tmp_path}"))
    (run,) = (tmp_path / "train").iterdir()
    assert run.name.startswith(f"{agent}_{task}_0_")
    with (run / "eval.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["task4_episode_length"]) == float(row["task2_episode_length"]) == 3
    assert 0 <= float(row["task4_success_frac"]) < 1 and float(row["success"]) == 0


@pytest.mark.skipif(rendering_problem() is not None, reason="this machine cannot render")
def test_images_are_learned_from_and_acted_on(files, tmp_path):
    record(files, VISUAL, episodes=2)
    chosen = ("agent=iql", "obs=rgb", "arch_mlp.conv_channels=[2]", "eval_task_ids=[1]")
    train.run(config(VISUAL, *SMALL, *chosen, f"output_dir={tmp_path}", "max_episode_steps=2"))
    (run,) = (tmp_path / "train").iterdir()
    with (run / "eval.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["task1_episode_length"]) == 2
