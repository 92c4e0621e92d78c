"""evaluate.py: which settings hold, which files it writes, what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from agents.base import Timestep
from agents.observations.kinds import make_observation
from agents.random_policy import RandomPolicy
from common.data.normaliser import Normaliser
from common.evaluation.evaluate import Evaluation, evaluate, summarise
from common.evaluation.results import save_results, table
from common.evaluation.video import Clip
from common.foundation.errors import UserError
from common.foundation.files import read_csv
from common.runs.agents import save_checkpoint
from common.runs.checkpoint import summary
from common.runs.folders import new_eval_folder
from common.runs.setup import make_setup
from common.settings.config import compose, parse
from common.settings.inherit import find_checkpoint, merge
from envs.make import make_world
from envs.rendering import rendering_problem

REPOSITORY = Path(__file__).resolve().parents[1]
TRAINED = (
    "env_kwargs.manipobj.num_cubes=1",
    "max_episode_steps=20",
    "num_eval_episodes=4",
    "num_video_episodes=0",
    "arch_eit.embed_dim=8",
    "arch_eit.h_dim=8",
    "arch_eit.n_head=2",
    "arch_eit.n_diffuser_layers=1",
    "sgiql.n_diffusion_samples=3",
    "sgiql.subgoal_steps=5",
    "sgiql.value_competence_radius=-1000.0",
)


@pytest.fixture(scope="module")
def untrained():
    """Settings and setup of a tiny EC-SGIQL agent with its initial parameters."""
    config = compose(TRAINED)
    world = make_world(config)
    observation = make_observation(config.obs, world)
    width = observation.shape[-1]
    normaliser = Normaliser(torch.zeros(width), torch.ones(width))
    return config, make_setup(config, world, observation, normaliser)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, untrained):
    folder = tmp_path_factory.mktemp("run")
    config, setup = untrained
    state = {"generator": torch.Generator().get_state()}
    save_checkpoint(folder / "last.safetensors", config, setup, 123, state, {"best": 0.0})
    return folder


def run_cubes(untrained, num_envs: int, workers: int) -> Evaluation:
    _, setup = untrained
    parts = setup.agent, setup.world, setup.observation, setup.normaliser
    return evaluate(*parts, episodes=4, seed=3, num_envs=num_envs, workers=workers)


@pytest.fixture(scope="module")
def one_by_one(untrained) -> Evaluation:
    return run_cubes(untrained, 1, 1)


def test_the_cube_world_gives_the_same_results_however_it_is_spread(untrained, one_by_one):
    assert run_cubes(untrained, 3, 2).rows == one_by_one.rows
    assert [row["episode_length"] for row in one_by_one.rows] == [20.0] * 4


@pytest.mark.skipif(rendering_problem() is not None, reason="this machine cannot render")
def test_filmed_cubes_show_goal_and_subgoal(untrained, one_by_one):
    _, setup = untrained
    parts = setup.agent, setup.world, setup.observation, setup.normaliser
    spread = {"episodes": 1, "seed": 3, "num_envs": 1, "workers": 1}
    result = evaluate(*parts, **spread, videos=1, video_frame_skip=10)
    (clip,) = result.clips
    assert {frame.shape for frame in (clip.goal, *clip.frames)} == {(128, 128, 3)}
    assert len(clip.frames) == 3  # steps 0 and 10 of 20, and the end
    assert result.rows == one_by_one.rows[:1]


def command(output: Path, *overrides: str) -> subprocess.CompletedProcess:
    arguments = [sys.executable, "evaluate.py", f"output_dir={output}", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        arguments, cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )


def test_command_writes_a_folder_of_its_own(run_folder, tmp_path):
    given = (f"eval_checkpoint={run_folder}", "num_eval_episodes=2", "num_eval_envs=1")
    given += ("num_workers=1", "max_episode_steps=6", "seed=5", "sgiql.disable_subgoal=true")
    result = command(tmp_path, *given)
    assert result.returncode == 0, result.stderr
    assert "sgiql after 123 updates on manipobj-v0: 2 episodes of 6 steps, seed 5" in result.stdout
    (folder,) = (tmp_path / "eval").iterdir()
    assert {path.name for path in folder.iterdir()} >= {"metrics.json", "episodes.csv"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["updates"], metrics["episodes"], metrics["env_steps"]) == (123, 2, 12)
    assert metrics["checkpoint_checksum"] == summary(run_folder / "last.safetensors")[1]
    assert metrics["data"] is None  # this agent has learned from nothing
    settings = metrics["settings"]
    assert (settings["arch_eit"]["embed_dim"], settings["sgiql"]["disable_subgoal"]) == (8, True)
    assert new_eval_folder(parse(settings)) != folder
    assert (folder / "metrics.json").exists()


def test_a_random_policy_looks_at_nothing_and_draws_by_episode(run_folder, tmp_path):
    rows = []
    for envs in (1, 4):
        out = tmp_path / str(envs)
        options = [f"num_eval_envs={envs}", "random_policy=true", "sgiql.debug_subgoals=true"]
        result = command(out, f"eval_checkpoint={run_folder}", *options)
        assert result.returncode == 0, result.stderr
        assert "random policy on manipobj-v0: 4 episodes" in result.stdout
        (file,) = (out / "eval").glob("*/episodes.csv")
        rows.append(file.read_text())
        assert json.loads(file.with_name("metrics.json").read_text())["updates"] == 0
    assert rows[0] == rows[1]


def test_random_actions_are_uniform():
    generators = [torch.Generator().manual_seed(i) for i in range(2000)]
    rows = torch.zeros(2000, 1)
    policy = RandomPolicy(3)
    memory = policy.begin(None).expand(2000)
    actions, kept = policy.act(Timestep(rows, None, rows, memory, generators))
    assert kept.is_empty()
    assert actions.shape == (2000, 3)
    assert actions.abs().max() <= 1
    torch.testing.assert_close(actions.mean(dim=0), torch.zeros(3), rtol=0, atol=0.05)
    torch.testing.assert_close(actions.var(dim=0), torch.full((3,), 1 / 3), rtol=0, atol=0.03)


def test_command_explains_a_missing_checkpoint(tmp_path):
    result = command(tmp_path, "eval_checkpoint=nowhere")
    assert result.returncode == 2
    assert result.stderr == (
        "error: no checkpoint at nowhere; train.py writes them into its run folder\n"
    )
    assert not (tmp_path / "eval").exists()


def test_checkpoint_is_a_file_or_the_last_of_a_folder(run_folder, tmp_path):
    last = run_folder / "last.safetensors"
    assert find_checkpoint(str(run_folder)) == find_checkpoint(str(last)) == last
    with pytest.raises(UserError, match=r"last\.safetensors"):
        find_checkpoint(str(tmp_path))
    with pytest.raises(UserError, match="eval_checkpoint is not set"):
        find_checkpoint(None)


def test_given_settings_win_over_the_checkpoints_and_those_over_defaults():
    stored = compose([*TRAINED, "device=cuda", "threads=3", "seed=9"]).raw
    given = ["env_kwargs.manipobj.num_cubes=2", "sgiql.filter_subgoals=false"]
    keys = [text.split("=")[0] for text in given]
    config = parse(merge(stored, compose(given).raw, keys))
    assert (config.world.num_cubes, config.agent_settings.filter_subgoals) == (2, False)
    assert (config.seed, config.arch_eit.embed_dim, config.max_episode_steps) == (9, 8, 20)
    assert (config.device, config.threads) == ("auto", 0)  # of this machine
    assert stored["env_kwargs"]["manipobj"]["num_cubes"] == 1  # untouched


def test_settings_newer_than_the_checkpoint_have_their_defaults():
    stored = compose(TRAINED).raw
    del stored["sgiql"]["filter_subgoals"], stored["video_frame_skip"]
    config = parse(merge(stored, compose().raw, []))
    assert (config.agent_settings.filter_subgoals, config.video_frame_skip) == (True, 3)


def test_files_tell_rows_summary_and_pictures(tmp_path):
    rows = [
        {"episode": i, "seed": 10 + i, "success": float(i == 1), "episode_reward": -1.5 * i}
        for i in range(3)
    ]
    clips = [Clip(i, np.zeros((8, 8, 3), np.uint8)) for i in range(2)]
    for clip in clips:
        clip.add(np.full((8, 8, 3), 80 * clip.episode, np.uint8), clip.episode == 1)
    result = Evaluation(rows, summarise(rows), clips, 60, 1.25)
    paths = save_results(tmp_path, result, {"updates": 7})
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    read = read_csv(tmp_path / "episodes.csv")
    assert [{name: float(text) for name, text in row.items()} for row in read] == rows
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["updates"] == 7
    assert metrics["env_steps"] == 60
    assert metrics["summary"]["success"]["mean"] == pytest.approx(1 / 3)
    assert list(metrics["summary"]["success"]) == ["mean", "low", "high", "count"]
    assert imageio.imread(tmp_path / "strip.png")[150, 100, 0] == 80  # the episode that succeeded
    assert table(result).splitlines()[1].split()[:2] == ["success", "0.333"]


def test_without_clips_there_are_no_pictures(tmp_path):
    rows = [{"episode": 0, "seed": 1, "success": 1.0}]
    save_results(tmp_path, Evaluation(rows, summarise(rows), [], 1, 0.1), {})
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json", "episodes.csv"}
