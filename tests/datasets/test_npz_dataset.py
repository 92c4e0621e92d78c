"""Files that others recorded: recognised, split into episodes, trained on where they lie."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.observations.kinds import make_observation
from common.foundation.device import resolve_device
from common.foundation.errors import UserError
from common.runs.loading import load_training_data
from datasets.npz_dataset import NpzDataset, open_dataset
from datasets.store import Dataset
from envs.make import make_world
from tests.helpers import manipobj_worlds
from tests.helpers.point_world import point_world

LENGTHS = (5, 3, 4)


def arrays(lengths: tuple[int, ...] = LENGTHS, **changes: np.ndarray | None) -> dict:
    """Columns of the point world; `changes` replaces some, None leaves one out."""
    rng = np.random.default_rng(len(lengths))
    rows = sum(lengths)
    columns = {
        "observations": rng.integers(0, 256, (rows, 16, 16, 3), np.uint8),
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "terminals": np.isin(np.arange(rows), np.cumsum(lengths) - 1),
        "qpos": rng.standard_normal((rows, 2), np.float32),
        "state_observations": rng.standard_normal((rows, 2), np.float32),
    } | changes
    return {name: column for name, column in columns.items() if column is not None}


def save(data_dir: Path, columns: dict, name: str = "points") -> Path:
    path = data_dir / f"{name}.npz"
    np.savez_compressed(path, **columns)
    return path


def test_episodes_end_where_terminals_say(tmp_path: Path) -> None:
    columns = arrays()
    dataset = NpzDataset(save(tmp_path, columns), point_world())
    assert dataset.lengths().tolist() == list(LENGTHS)
    assert len(dataset.lengths("val")) == 0
    loaded, lengths = dataset.load(list(columns))
    assert lengths.tolist() == list(LENGTHS)
    for name, column in columns.items():
        np.testing.assert_array_equal(loaded[name], column)
        assert loaded[name].dtype == column.dtype
    episodes = list(dataset.stream(["qpos", "actions"]))
    assert [len(episode["qpos"]) for episode in episodes] == list(LENGTHS)
    np.testing.assert_array_equal(episodes[1]["qpos"], columns["qpos"][5:8])


@pytest.mark.parametrize(("div", "kept"), [(1, [5, 3, 4]), (2, [5]), (3, [5]), (100, [5])])
def test_div_keeps_whole_episodes(tmp_path: Path, div: int, kept: list[int]) -> None:
    columns = arrays()
    loaded, lengths = NpzDataset(save(tmp_path, columns), point_world()).load(["actions"], div=div)
    assert lengths.tolist() == kept
    np.testing.assert_array_equal(loaded["actions"], columns["actions"][: sum(kept)])


def test_header_says_what_can_be_known(tmp_path: Path) -> None:
    path = save(tmp_path, arrays())
    save(tmp_path, arrays((2, 2)), "points-val")
    dataset = NpzDataset(path, point_world())
    header = dataset.header
    assert header["environment"] == "point-v0"
    assert header["episodes"] == {"train": 3, "val": 2}
    assert header["rows"] == {"train": 12, "val": 4}
    assert header["max_episode_steps"] == 5
    assert (header["pixels"], header["multiview"]) == (True, False)
    assert header["columns"]["observations"] == {"shape": [16, 16, 3], "dtype": "uint8"}
    assert header["source"]["val"]["file"] == "points-val.npz"
    assert len(header["source"]["train"]["crc32"]) == 5
    assert header["versions"] == {}
    assert dataset.load(["actions"], "val")[1].tolist() == [2, 2]


def test_other_types_of_the_same_numbers_are_taken(tmp_path: Path) -> None:
    """float64 and terminals of 0.0 and 1.0, as OGBench's own files may have them."""
    columns = arrays()
    wide = {name: columns[name].astype(np.float64) for name in ("actions", "terminals", "qpos")}
    loaded, lengths = NpzDataset(save(tmp_path, columns | wide), point_world()).load(list(columns))
    assert lengths.tolist() == list(LENGTHS)
    for name in wide:
        assert loaded[name].dtype == columns[name].dtype
        np.testing.assert_array_equal(loaded[name], columns[name])


def test_columns_that_a_world_does_not_know_are_kept(tmp_path: Path) -> None:
    extra = np.arange(24, dtype=np.int64).reshape(12, 2)
    dataset = NpzDataset(save(tmp_path, arrays(button_states=extra)), point_world())
    np.testing.assert_array_equal(dataset.load(["button_states"])[0]["button_states"], extra)


def test_members_that_nobody_needs_are_left_out_and_named(tmp_path: Path, warned) -> None:
    """One number per episode or file, texts, objects, other groups: the file is whole."""
    others = {
        "episode_returns": np.zeros(3),
        "fps": np.array(30),
        "env_name": np.array("point"),
        "infos": np.array([{}] * 12),
        "metadata/version": np.array([1]),
    }
    columns = arrays(qpos=np.asfortranarray(arrays()["qpos"]))
    dataset = NpzDataset(save(tmp_path, columns | others), point_world())
    assert list(dataset.header["columns"]) == list(columns)
    np.testing.assert_array_equal(dataset.load(["qpos"])[0]["qpos"], columns["qpos"])
    (message,) = warned
    for reason in (
        *("episode_returns (it has 3 rows, not 12)", "fps (a single number does not"),
        *("env_name (it holds <U5, not numbers", "infos (it holds object, not numbers"),
        "metadata/version (this is not a column",
    ):
        assert reason in message
    warned.clear()
    NpzDataset(save(tmp_path, columns), point_world())
    assert warned == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"terminals": None}, r"does not fit: column terminals is missing \(there are obs"),
        ({"actions": np.zeros((12, 7), np.float32)}, r"actions has rows of shape \(7,\) .*\(2,\)"),
        ({"terminals": np.zeros((12, 1), bool)}, r"terminals has rows of shape \(1,\)"),
        ({"qpos": np.zeros((12, 2), complex)}, "complex128, not numbers"),
        ({"observations": np.zeros((12, 16, 16, 3))}, "images are"),
        ({"observations": np.zeros((12, 16), np.uint8)}, "images are"),
        ({"qpos": np.array([{}] * 12)}, "column qpos: it holds object, not numbers"),
        ({"actions": np.zeros((12, 2), object)}, "column actions: it holds object"),
        ({"actions": None}, "no column actions"),
        ({"qpos": np.zeros((11, 2), np.float32)}, "'qpos': 11.* they need the same, not 0"),
        ({"terminals": np.zeros(12, bool)}, "ends within an episode"),
        ({"terminals": np.arange(12) == 5}, "ends within an episode"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    path = save(tmp_path, arrays(**changes))
    with pytest.raises(UserError, match=message) as error:
        NpzDataset(path, point_world())
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, {name: column[:0] for name, column in arrays().items()})
    with pytest.raises(UserError, match="they need the same, not 0"):
        NpzDataset(path, point_world())


def test_validation_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, arrays())
    save(tmp_path, arrays(observations=None), "points-val")
    with pytest.raises(UserError, match=r"points-val\.npz|has other columns"):
        NpzDataset(path, point_world())


def test_a_folder_goes_before_a_file(tmp_path: Path) -> None:
    save(tmp_path, arrays())
    assert isinstance(open_dataset(tmp_path, "points", point_world()), NpzDataset)
    (tmp_path / "points").mkdir()
    with pytest.raises(UserError, match="no dataset points"):
        open_dataset(tmp_path, "points", point_world())


def test_the_number_of_cubes_is_told(tmp_path: Path) -> None:
    rows = {
        "actions": np.zeros((4, 5), np.float32),
        "terminals": np.arange(4) == 3,
        "qpos": np.zeros((4, 35), np.float32),
    }
    path = save(tmp_path, rows)
    world = manipobj_worlds.make_world(num_cubes=3)
    assert NpzDataset(path, world).header["settings"]["num_cubes"] == 3
    with pytest.raises(UserError, match=r"\(35,\) .*manipobj\.num_cubes=1 it is \(21,\)"):
        NpzDataset(path, manipobj_worlds.make_world(num_cubes=1))


@pytest.fixture
def foreign(tiny_data: Path, tmp_path: Path) -> Path:
    """`tiny` as the reference would have stored it, with images that nobody can unpack."""
    columns, _ = Dataset.open(tiny_data, "tiny").load(["actions", "terminals", "qpos"])
    columns |= Dataset.open(tiny_data, "tiny").load(["state_observations"])[0]
    images = np.random.default_rng(0).integers(0, 256, (len(columns["qpos"]), 9, 9, 3), np.uint8)
    path = save(tmp_path, columns | {"observations": images}, "tiny")
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("observations.npy")
    content = bytearray(path.read_bytes())
    last = info.header_offset + info.compress_size - 100
    content[last : last + 50] = bytes(50)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("div", [1, 4])
def test_training_on_a_file_equals_training_on_the_folder(
    div: int, tiny_config, foreign: Path
) -> None:
    config = tiny_config(f"train_dataset_div={div}", "env_kwargs.manipobj.reward_mode=step")
    other = tiny_config(
        f"train_dataset_div={div}",
        "env_kwargs.manipobj.reward_mode=step",
        f"data_dir={foreign.parent}",
    )
    loaded = []
    for settings in (config, other):
        world = make_world(settings)
        observation = make_observation(settings.obs, world)
        loaded.append(load_training_data(settings, world, observation, resolve_device("cpu")))
    (buffer, normaliser), (buffer2, normaliser2) = loaded
    assert torch.equal(buffer.obs, buffer2.obs)
    assert torch.equal(buffer.action, buffer2.action)
    assert torch.equal(buffer.episodes.length, buffer2.episodes.length)
    assert torch.equal(buffer.reward_rows["qpos"], buffer2.reward_rows["qpos"])
    assert torch.equal(normaliser.mean, normaliser2.mean)
    assert len(buffer.episodes.length) == 6 // div
