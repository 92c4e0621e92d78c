"""Digests of datasets: other data have another one, however they came to be others."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from datasets.convert import export_npz
from datasets.npz_dataset import NpzDataset
from datasets.source import EpisodeSource
from datasets.store import Dataset, episode_path
from tests.helpers.datasets import record
from tests.helpers.point_world import point_world

COLUMNS = ("actions", "state_observations")


def digest(dataset: EpisodeSource, *columns: str, **part) -> str:
    return dataset.digest(columns or COLUMNS, **part)


def as_file(dataset: Dataset, name: str) -> NpzDataset:
    path = dataset.folder.with_name(f"{name}.npz")
    export_npz(dataset, path)
    return NpzDataset(path, point_world())


def test_equal_collections_are_equal_and_others_are_not(tmp_path) -> None:
    one = record(tmp_path, "one")
    same = record(tmp_path / "elsewhere", "same", command="another command")
    other, more = record(tmp_path, "other", seed=4), record(tmp_path, "more", episodes=11)
    assert digest(one) == digest(same)
    assert len({digest(one), digest(other), digest(more)}) == 3
    assert digest(more, div=2) == digest(one, div=2) != digest(one)
    assert digest(one, split="val") != digest(one)
    assert digest(one, "actions") != digest(one, "state_observations")
    files = [as_file(dataset, f"{dataset.folder.name}-file") for dataset in (one, other, more)]
    assert len({digest(file) for file in files}) == 3
    again = NpzDataset(shutil.copy(files[0].path, tmp_path / "copy.npz"), point_world())
    assert digest(again, div=2) == digest(files[0], div=2) != digest(again)


@pytest.mark.parametrize("change", ["a value", "another episode", "one row less"])
def test_any_change_of_an_episode_shows(tmp_path, change: str) -> None:
    dataset = record(tmp_path)
    before, seen = digest(dataset), digest(dataset, "actions")
    path = episode_path(dataset.folder, "train", 3)
    if change == "another episode":
        shutil.copy(episode_path(dataset.folder, "train", 4), path)
    else:
        with h5py.File(path, "r+") as file:
            if change == "a value":
                file["state_observations"][2, 0] += 1e-6
            else:
                for column in file.values():
                    column.resize(len(column) - 1, axis=0)
    assert digest(dataset) != before
    assert (digest(dataset, "actions") == seen) == (change == "a value")


def test_columns_without_checksums_are_read(tmp_path) -> None:
    """Files that other programs wrote in this format."""
    dataset = record(tmp_path)
    found = []
    for value in (0.0, 1e-6):
        rewrite(episode_path(dataset.folder, "train", 3), value)
        found.append(digest(dataset))
    assert found[0] != found[1]


def rewrite(path: Path, more: float) -> None:
    with h5py.File(path, "r+") as file:
        for name in list(file):
            column = file[name][()]
            del file[name]
            if name == "state_observations":
                column[2, 0] += more
            file.create_dataset(name, data=column, chunks=None if more else column.shape)
        assert isinstance(file["actions"][()], np.ndarray)
