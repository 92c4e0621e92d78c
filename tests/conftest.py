"""Fixtures that several test files share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.foundation.messages import Line, Terminal, lines_to
from common.settings.config import Config, compose
from envs.make import make_world
from tests.helpers.datasets import run
from tests.helpers.point_world import point_world

EPISODES, LENGTH = 6, 25
NOISE_EPISODES, NOISE_ROWS = 10, 6
CUBES = "env_kwargs.manipobj.num_cubes=1"
TINY = (
    CUBES,
    "device=cpu",
    "threads=1",
    "train_dataset_name=tiny",
    f"max_episode_steps={LENGTH}",
    "batch_size=8",
    "num_eval_episodes=1",
    "num_video_episodes=0",
    "num_workers=1",
    "arch_eit.embed_dim=8",
    "arch_eit.h_dim=8",
    "arch_eit.n_head=2",
    "arch_eit.n_diffuser_layers=1",
    "sgiql.n_diffusion_samples=3",
    "sgiql.n_diffusion_steps=3",
    "sgiql.subgoal_k=5",
    "sgiql.subgoal_steps=5",
)


@pytest.fixture(autouse=True)
def own_messages() -> Iterator[None]:
    """Lines that a command tells once are told once a test."""
    with lines_to(Terminal()):
        yield


@pytest.fixture
def warned() -> Iterator[list[str]]:
    """Warnings of the test, in which nothing else is told."""
    lines: list[str] = []

    def receive(line: Line) -> None:
        assert line.warning
        lines.append(f"warning: {line.text}")

    with lines_to(receive):
        yield lines


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the dataset `tiny`: real episodes with one cube."""
    data_dir = tmp_path_factory.mktemp("data")
    mode = "env_kwargs.manipobj.mode=data_collection"
    config = compose([CUBES, mode, f"max_episode_steps={LENGTH}"])
    run(data_dir, "tiny", make_world(config), episodes=EPISODES, seed=0, settings=config.collect)
    return data_dir


@pytest.fixture
def tiny_overrides(tiny_data: Path, tmp_path: Path) -> list[str]:
    """Overrides for a training of a few small updates on `tiny`, with its output in `tmp_path`."""
    return [*TINY, f"data_dir={tiny_data}", f"output_dir={tmp_path}"]


@pytest.fixture
def tiny_config(tiny_overrides: list[str]) -> Callable[..., Config]:
    """Composes the settings of such a training, with further overrides."""
    return lambda *overrides: compose([*tiny_overrides, *overrides])


@pytest.fixture(scope="session")
def noise_data(tmp_path_factory) -> Path:
    """A data folder with the dataset `noise`: two views of 16 x 16 random pixels."""
    data_dir = tmp_path_factory.mktemp("images")
    world = point_world(max_episode_steps=NOISE_ROWS)
    run(data_dir, "noise", world, episodes=NOISE_EPISODES, seed=0, pixels=True)
    return data_dir
