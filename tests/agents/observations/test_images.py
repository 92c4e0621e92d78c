"""Agents that see images: encoding, data, memory, learning, evaluation."""

from pathlib import Path

import pytest
import torch

import train
from agents.observations.kinds import make_observation
from agents.observations.spec import ObservationSpec
from common.data.normaliser import Normaliser
from common.evaluation import evaluate as evaluation
from common.evaluation.evaluate import check_rendering, evaluate
from common.evaluation.player import episode_seeds
from common.foundation.errors import UserError
from common.runs import loading as training_data
from common.runs.agents import load_agent
from common.runs.checkpoint import load_checkpoint
from common.runs.loading import load_training_data
from common.runs.setup import Setup
from common.settings.config import Config, compose
from datasets.store import Dataset
from envs.make import make_world
from envs.rendering import rendering_problem
from tests.conftest import TINY
from tests.helpers import manipobj_worlds, pushtetris_worlds, scene_worlds
from tests.helpers.datasets import record
from tests.helpers.fake_agents import FakeAgent

CPU = torch.device("cpu")
SIZE, LENGTH, EPISODES = 64, 12, 3
SECTION = "env_kwargs.pushtetris"
IMAGES = (
    *TINY[1:],  # but for the number of cubes
    "task=pushtetris-v0",
    f"{SECTION}.num_objects=1",
    f"{SECTION}.render_size={SIZE}",
    "obs=rgb",
    "agent=iql",
    f"max_episode_steps={LENGTH}",
    "arch_mlp.h_dim=8",
    "arch_mlp.conv_channels=[2,3]",
    "steps=3",
    "log_freq=1",
    "num_eval_episodes=3",
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with `tiny`: episodes of Push-Tetris with images; `blind`: without."""
    folder = tmp_path_factory.mktemp("data")
    settings = {"mode": "data_collection", "num_objects": 1, "render_size": SIZE}
    world = pushtetris_worlds.make_world(max_episode_steps=LENGTH, **settings)
    for name, pixels in (("tiny", True), ("blind", False)):
        record(folder, name, world, episodes=EPISODES, pixels=pixels)
    return folder


@pytest.fixture
def settings(data_dir, tmp_path):
    """Composes settings of a small training, with further overrides."""
    own = [f"data_dir={data_dir}", f"output_dir={tmp_path}"]
    return lambda *overrides: compose([*IMAGES, *own, *overrides])


def load(config: Config):
    world = make_world(config)
    return load_training_data(config, world, make_observation(config.obs, world), CPU)


# Encoding.


@pytest.mark.parametrize("views", [1, 2])
def test_channels_of_all_views_come_first(views):
    world = manipobj_worlds.make_world(multiview=views == 2, width=20, height=12)
    observation = make_observation("rgb", world)
    stored = (2, 12, 20, 3) if views == 2 else (12, 20, 3)
    raw = torch.randint(0, 256, (4, *stored), dtype=torch.uint8)
    obs = observation.encode(raw, observation.identities(4, torch.Generator()))
    assert observation.spec == ObservationSpec("image", (3 * views, 12, 20))
    assert obs.shape == (4, 3 * views, 12, 20) and obs.dtype == torch.uint8
    for view in range(views):
        images = raw[:, view] if views == 2 else raw
        for color in range(3):
            assert torch.equal(obs[:, 3 * view + color], images[..., color])
    assert torch.equal(observation.decode(obs), raw)


def test_bytes_are_neither_scaled_nor_copied():
    normaliser = Normaliser.none(CPU)
    obs = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    assert normaliser(obs) is obs and normaliser.inverse(obs) is obs
    assert Normaliser.none(CPU).to(CPU)(obs) is obs
    assert not normaliser.scales and Normaliser(torch.zeros(1), torch.ones(1)).scales


# Data.


def test_the_buffer_holds_the_stored_bytes(settings, data_dir):
    buffer, normaliser = load(settings())
    columns, _ = Dataset.open(data_dir, "tiny").load(["observations"])
    assert buffer.obs.dtype == torch.uint8 and not normaliser.scales
    assert torch.equal(buffer.obs, torch.from_numpy(columns["observations"]).movedim(-1, 1))
    batch = buffer.sample(16, torch.Generator().manual_seed(0))
    for images in (batch.obs, batch.next_obs, batch.value_goal, batch.policy_goal):
        assert images.shape == (16, 3, SIZE, SIZE) and images.dtype == torch.uint8
    assert (batch.obs != batch.value_goal).any()


def test_data_without_images_say_how_to_collect_them(settings, tmp_path):
    with pytest.raises(UserError, match=r"blind has no images; collect with obs=rgb$"):
        load(settings("train_dataset_name=blind"))
    with pytest.raises(UserError, match=r"python collect\.py .*obs=rgb dataset_name=absent"):
        load(settings("train_dataset_name=absent"))


def test_other_views_or_sizes_are_named(tmp_path):
    """Those of the data and those of the settings."""
    for pixels, name in ((True, "pictures"), (False, "blind")):
        world = manipobj_worlds.make_world(mode="data_collection", num_cubes=1)
        header = {"columns": {k: _entry(*v) for k, v in world.dataset_columns(pixels).items()}}
        dataset = Dataset(tmp_path / name, header)
        for changes, wanted in (
            ({"multiview": True}, "2 views of 32 x 32"),
            ({"width": 48}, "1 view of 48 x 32"),
        ):
            observation = make_observation("rgb", manipobj_worlds.make_world(**changes))
            message = rf"pictures has 1 view of 32 x 32 pixels, .* {wanted} pixels; .*manipobj"
            if not pixels:
                extra = " multiview=true" if "multiview" in changes else ""
                message = f"no images; collect with obs=rgb{extra}$"
            with pytest.raises(UserError, match=message):
                observation.check(dataset)
        make_observation("state", world).check(dataset)


def _entry(shape: tuple[int, ...], dtype: str) -> dict:
    return {"shape": list(shape), "dtype": dtype}


def test_more_than_the_memory_holds_is_refused_with_both_numbers(settings, monkeypatch):
    """Before anything is read; a smaller part of the data is taken."""
    rows = EPISODES * LENGTH
    needed = rows * (3 * SIZE * SIZE + SIZE * SIZE // 8 + 2 * 4)  # image, mask, action
    monkeypatch.setattr(training_data, "free_memory", lambda place: needed)
    load(settings())
    monkeypatch.setattr(training_data, "free_memory", lambda place: needed - 1)
    message = r"takes 0\.0 GiB .* obs=rgb, cpu has 0\.0 GiB free; .* train_dataset_div=2$"
    with monkeypatch.context() as patch, pytest.raises(UserError, match=message):
        patch.setattr(Dataset, "load", None)
        load(settings())
    assert len(load(settings("train_dataset_div=2"))[0]) == LENGTH


@pytest.mark.parametrize("agent", ["sgiql", "hiql"])
def test_agents_with_subgoals_are_refused_before_anything_is_read(settings, agent):
    with pytest.raises(UserError, match=r"subgoals cannot be images; use agent=iql, or obs="):
        train.run(settings(f"agent={agent}", "train_dataset_name=absent"))


# Learning and acting.


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory) -> tuple[Setup, Path]:
    """A trained agent, read from its checkpoint."""
    folder = tmp_path_factory.mktemp("output")
    own = [f"data_dir={data_dir}", f"output_dir={folder}", "run_name=images"]
    train.run(compose([*IMAGES, *own]))
    path = folder / "train" / "images" / "last.safetensors"
    setup, _, step = load_agent(path, CPU)
    assert step == 3
    return setup, path


def run(setup: Setup, episodes: int, num_envs: int, workers: int, **options):
    parts = setup.agent, setup.world, setup.observation, setup.normaliser
    spread = {"episodes": episodes, "seed": 3, "num_envs": num_envs, "workers": workers}
    return evaluate(*parts, **spread, **options)


def test_an_agent_learns_is_stored_and_evaluated_however_it_is_spread(trained):
    setup, path = trained
    assert not setup.normaliser.scales
    state = load_checkpoint(path).state["agent"]
    assert state["policy"]["adam"]["step"] == 3
    alone = run(setup, 5, 1, 1)
    spread = run(setup, 5, 3, 2, videos=1, video_frame_skip=6)
    assert spread.rows == alone.rows
    assert len({row["final_chamfer"] for row in alone.rows}) == 5
    (clip,) = spread.clips
    assert not clip.subgoals and len(clip.frames) == 3  # steps 0 and 6 of 12, and the end


def test_the_policy_sees_the_environment_s_images_as_the_buffer_has_them(trained, monkeypatch):
    setup, _ = trained
    seen = []
    act = setup.agent.act
    monkeypatch.setattr(setup.agent, "act", lambda moment: seen.append(moment) or act(moment))
    run(setup, 1, 1, 1)
    env = setup.world.make(pixels=True)
    image, info = env.reset(seed=episode_seeds(3, 0)[0])
    obs, goal = seen[0].obs, seen[0].goal
    assert torch.equal(obs, torch.from_numpy(image).movedim(-1, 0)[None])
    assert torch.equal(goal, torch.from_numpy(info["goal"]).movedim(-1, 0)[None])
    assert len(seen) == LENGTH and obs.dtype == torch.uint8


# Worlds that a graphics driver draws.


def test_training_on_images_wants_a_machine_that_draws_them(monkeypatch):
    monkeypatch.setattr(evaluation, "rendering_problem", lambda: "no OpenGL")
    cubes, tetris = manipobj_worlds.make_world(), pushtetris_worlds.make_world()
    check_rendering(cubes, make_observation("state", cubes))
    check_rendering(tetris, make_observation("rgb", tetris))
    with pytest.raises(UserError, match="cannot be evaluated here: no OpenGL"):
        check_rendering(cubes, make_observation("rgb", cubes))


class Sampler(FakeAgent):
    """Random actions from each episode's own generator, moved a little by what it sees."""

    def act(self, timestep):
        obs, goal = (x.double().mean((1, 2, 3)) for x in (timestep.obs, timestep.goal))
        noise = torch.stack([2 * torch.rand(5, generator=g) - 1 for g in timestep.generators])
        return (noise + (obs - goal)[:, None] / 255).clamp(-1, 1), timestep.memory


@pytest.mark.skipif(rendering_problem() is not None, reason="this machine cannot render")
@pytest.mark.parametrize(
    ("world", "channels", "tasks"),
    [
        (manipobj_worlds.make_world(multiview=True, num_cubes=1, max_episode_steps=1), 6, ()),
        (scene_worlds.make_world(max_episode_steps=1), 3, (4,)),
    ],
)
def test_worlds_on_the_table_are_seen_by_several_environments_of_a_process(world, channels, tasks):
    observation = make_observation("rgb", world)
    assert observation.shape == (channels, 32, 32)
    setup = Setup(Sampler(), world, observation, Normaliser.none(CPU))
    result = run(setup, 2, 2, 1, tasks=tasks, videos=1, video_frame_skip=1)
    assert [row["episode_length"] for row in result.rows] == [1, 1]
    assert result.clips[0].frames[0].shape == (32, 32 * channels // 3, 3)
