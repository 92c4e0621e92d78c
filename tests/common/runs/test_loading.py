"""Training on data as other people have it: short episodes, actions off the scale, ends."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from agents.observations.kinds import make_observation
from common.data.buffer import Buffer
from common.foundation.errors import UserError
from common.foundation.files import write_json
from common.runs.loading import load_training_data
from datasets.episodes import EpisodeWriter
from datasets.store import Dataset, episode_path
from envs.make import make_world

STEPS = 25  # of an episode of `tiny`, which has six


@pytest.fixture
def load(tiny_data: Path, tiny_config, tmp_path: Path):
    """Loads `tiny`, a copy that the test may change, with further settings."""
    data_dir = Path(shutil.copytree(tiny_data, tmp_path / "own"))

    def call(*overrides: str) -> Buffer:
        config = tiny_config(f"data_dir={data_dir}", *overrides)
        world = make_world(config)
        observation = make_observation(config.obs, world)
        return load_training_data(config, world, observation, torch.device("cpu"))[0]

    call.dataset = Dataset.open(data_dir, "tiny")
    return call


def shorten(dataset: Dataset, index: int, rows: int) -> Path:
    """Keep the first `rows` of an episode."""
    path, episode = (
        episode_path(dataset.folder, "train", index),
        dataset.read_episode("train", index),
    )
    with EpisodeWriter(path, {name: dataset.column(name) for name in episode}) as writer:
        for t in range(rows):
            writer.append({name: column[t] for name, column in episode.items()})
    return path


def as_file(dataset: Dataset, **changes: np.ndarray) -> Path:
    """The dataset as somebody else's file, instead of the folder; `changes` replace columns."""
    columns, _ = dataset.load(list(dataset.header["columns"]))
    path = dataset.folder.with_suffix(".npz")
    np.savez(path, **(columns | changes))
    shutil.rmtree(dataset.folder)
    return path


def test_short_episodes_are_named_and_left_out_when_asked(load) -> None:
    whole = load()
    path = shorten(load.dataset, 1, 1)
    shorten(load.dataset, 4, 2)
    told = (
        rf"2 of 6 episodes have fewer than the 3 rows that training needs, first {path}: 1; skip_"
    )
    with pytest.raises(UserError, match=told):
        load()
    buffer = load("skip_short_episodes=true")
    assert buffer.episodes.length.tolist() == [STEPS] * 4
    assert buffer.episodes.first.tolist() == [0, STEPS + 1, 2 * STEPS + 1, 3 * STEPS + 3]
    assert torch.equal(buffer.action[26:51], whole.action[50:75])
    drawn = buffer.goals.transitions(buffer.episodes, 5000, torch.Generator().manual_seed(0))
    rows = torch.cat([*drawn, drawn.state + 1])
    assert not torch.isin(rows, torch.tensor([STEPS, 3 * STEPS + 1, 3 * STEPS + 2])).any()
    assert rows.unique().numel() == 4 * STEPS


def test_data_of_short_episodes_alone_are_refused(load) -> None:
    for index in range(6):
        shorten(load.dataset, index, 2)
    with pytest.raises(UserError, match=r"6 of 6 episodes .*000000\.h5: 2$"):
        load("skip_short_episodes=true")


def test_a_short_episode_of_a_file_is_named_with_its_row(load) -> None:
    path = as_file(load.dataset, timeouts=np.arange(6 * STEPS) == 2 * STEPS)
    with pytest.raises(UserError, match=rf"first {path}, episode 2 \(from row 50 on\): 1; skip_sh"):
        load()
    assert load("skip_short_episodes=true").episodes.length.tolist() == [25, 25, 24, 25, 25, 25]


def test_time_limits_end_episodes(load) -> None:
    """Rows of two episodes are neighbours of nobody: no goal and no next state lies in another."""
    rows = np.arange(6 * STEPS)
    as_file(load.dataset, terminals=rows == 6 * STEPS - 1, timeouts=rows % STEPS == STEPS - 1)
    buffer = load()
    assert buffer.episodes.length.tolist() == [STEPS] * 6
    drawn = buffer.goals.transitions(buffer.episodes, 5000, torch.Generator().manual_seed(0), 5)
    own = drawn.state // STEPS
    for goal in (drawn.state + 1, drawn.value_goal, drawn.policy_goal, drawn.policy_subgoal):
        assert torch.equal(goal // STEPS, own)


def test_episodes_that_an_import_glued_together_are_refused(load) -> None:
    """As one did that knew `terminals` alone, and kept the other columns as they were."""
    dataset = load.dataset
    shape = {"shape": [], "dtype": "bool"}
    header = dataset.header | {"columns": dataset.header["columns"] | {"timeouts": shape}}
    write_json(dataset.folder / "header.json", header, sealed=True)
    for index in range(6):
        with h5py.File(episode_path(dataset.folder, "train", index), "r+") as file:
            file.create_dataset("timeouts", data=np.arange(STEPS) == STEPS - 1)
    assert len(load().episodes.length) == 6
    path = episode_path(dataset.folder, "train", 4)
    with h5py.File(path, "r+") as file:
        file["timeouts"][11] = True
    told = rf"column timeouts tells of an end within an episode, first in {path}; import the file"
    with pytest.raises(UserError, match=told):
        load()


def test_actions_off_the_scale_are_clipped_refused_or_warned_of(load, warned) -> None:
    path = episode_path(load.dataset.folder, "train", 3)
    with h5py.File(path, "r+") as file:
        file["actions"][7, 2] = -1.5
    assert load().action[3 * STEPS + 7, 2] == -1.5
    assert "tiny: 0.13 % of column actions is beyond [-1, 1]: number 2 of a row sp" in "\n".join(
        warned
    )
    warned.clear()
    clipped = load("clip_actions=true")
    assert clipped.action[3 * STEPS + 7, 2] == -1 == clipped.action.min()
    assert warned == []
    with h5py.File(path, "r+") as file:
        file["actions"][7, 2] = 100
    for overrides in ([], ["clip_actions=true"]):
        with pytest.raises(UserError, match=r"own/tiny: .*scale .*number 2 of a row .* 100\]; sto"):
            load(*overrides)
