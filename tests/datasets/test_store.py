"""Episode files and dataset folders: round trips, commits, damage, and messages."""

import errno
import json
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from common.foundation.errors import UserError
from datasets.episodes import EpisodeWriter
from datasets.store import CHUNK_BYTES, FORMAT, FORMAT_VERSION, HEADER, Dataset, episode_path

COLUMNS = {
    "actions": ((2,), "float32"),
    "terminals": ((), "bool"),
    "observations": ((2, 8, 8, 3), "uint8"),
}


def episode(length: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "actions": rng.standard_normal((length, 2), np.float32),
        "terminals": np.arange(length) == length - 1,
        "observations": rng.integers(0, 256, (length, 2, 8, 8, 3), np.uint8),
    }


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with EpisodeWriter(path, COLUMNS) as writer:
        for t in range(len(arrays["actions"])):
            writer.append({name: array[t] for name, array in arrays.items()})


def make_dataset(
    data_dir: Path,
    lengths: tuple[int, ...] = (120, 7, 50, 31),
    wanted: int | None = None,
    **changes,
) -> list[dict[str, np.ndarray]]:
    """A dataset `toy` with the given training episodes and one of validation."""
    folder = data_dir / "toy"
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "command": "python collect.py dataset_name=toy",
        "environment": "toy-v0",
        "settings": {},
        "multiview": False,
        "columns": {n: {"shape": list(s), "dtype": d} for n, (s, d) in COLUMNS.items()},
        "episodes": {"train": wanted or len(lengths), "val": 1},
        "max_episode_steps": 120,
    }
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
    (folder / HEADER).write_text(json.dumps(header | changes))
    episodes = [episode(length, seed) for seed, length in enumerate(lengths)]
    for index, arrays in enumerate(episodes):
        write(episode_path(folder, "train", index), arrays)
    write(episode_path(folder, "val", 0), episode(5, seed=99))
    return episodes


def test_load_returns_the_rows_written(tmp_path: Path) -> None:
    episodes = make_dataset(tmp_path)
    columns, lengths = Dataset.open(tmp_path, "toy").load(list(COLUMNS))
    assert lengths.tolist() == [120, 7, 50, 31]
    for name, (shape, dtype) in COLUMNS.items():
        assert columns[name].shape == (208, *shape)
        assert columns[name].dtype == dtype
        assert columns[name].flags.c_contiguous
        np.testing.assert_array_equal(columns[name], np.concatenate([e[name] for e in episodes]))


def test_single_episodes_and_lengths(tmp_path: Path) -> None:
    episodes = make_dataset(tmp_path)
    dataset = Dataset.open(tmp_path, "toy")
    arrays = dataset.read_episode("train", 2)
    assert arrays.keys() == COLUMNS.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, episodes[2][name])
    assert dataset.read_episode("val", 0, ["actions"]).keys() == {"actions"}
    assert dataset.lengths("train").tolist() == [120, 7, 50, 31]


@pytest.mark.parametrize(
    ("div", "kept"), [(1, [120, 7, 50, 31]), (2, [120, 7]), (3, [120]), (9, [120])]
)
def test_div_keeps_the_first_whole_episodes(tmp_path: Path, div: int, kept: list[int]) -> None:
    episodes = make_dataset(tmp_path)
    columns, lengths = Dataset.open(tmp_path, "toy").load(["actions"], div=div)
    assert lengths.tolist() == kept
    expected = np.concatenate([e["actions"] for e in episodes[: len(kept)]])
    np.testing.assert_array_equal(columns["actions"], expected)


def test_only_whole_episodes_appear(tmp_path: Path) -> None:
    path = tmp_path / "000000.h5"
    writer = EpisodeWriter(path, COLUMNS)
    with pytest.raises(KeyboardInterrupt), writer:
        for t in range(60):
            writer.append({name: array[t] for name, array in episode(60).items()})
        assert not path.exists()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_failed_commit_leaves_the_previous_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "000000.h5"
    write(path, episode(3))
    before = path.read_bytes()

    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("datasets.episodes.os.fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*000000\.h5.*: No space left on device"):
        write(path, episode(4))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_empty_episode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without rows"), EpisodeWriter(tmp_path / "0.h5", COLUMNS):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.zeros(3, np.float32)}, "column actions"),
        ({"actions": np.float32(0)}, "column actions"),
        ({"actions": np.array([0, np.nan])}, "column actions: a value is not finite"),
        ({"observations": np.zeros((2, 8, 8, 3))}, "Cannot cast"),
        ({"extra": 1}, "extra"),
    ],
)
def test_misfitting_rows_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    row = {name: array[0] for name, array in episode(1).items()} | change
    with (
        pytest.raises((ValueError, TypeError), match=message),
        EpisodeWriter(tmp_path / "0.h5", COLUMNS) as writer,
    ):
        writer.append(row)


def test_writer_holds_no_more_than_a_chunk(tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    tracemalloc.start()
    with EpisodeWriter(tmp_path / "0.h5", {"observations": (frame.shape, "uint8")}) as writer:
        for _ in range(100):
            writer.append({"observations": frame})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 100 * frame.nbytes > 8 * CHUNK_BYTES
    assert peak < 2 * CHUNK_BYTES


def test_frames_are_compressed_without_loss_in_checked_chunks(tmp_path: Path) -> None:
    frames = np.zeros((30, 2, 128, 128, 3), np.uint8)
    frames[:, :, 40:80] = 200
    columns = {"observations": (frames.shape[1:], "uint8")}
    with EpisodeWriter(tmp_path / "0.h5", columns) as writer:
        for frame in frames:
            writer.append({"observations": frame})
    assert (tmp_path / "0.h5").stat().st_size < frames.nbytes / 50
    with h5py.File(tmp_path / "0.h5") as file:
        stored = file["observations"]
        assert stored.fletcher32
        assert stored.compression == "gzip"
        assert np.prod(stored.chunks) <= CHUNK_BYTES
        np.testing.assert_array_equal(stored[()], frames)


@pytest.mark.parametrize("column", list(COLUMNS))
def test_flipped_byte_is_noticed_and_named(tmp_path: Path, column: str) -> None:
    make_dataset(tmp_path)
    path = episode_path(tmp_path / "toy", "train", 1)
    with h5py.File(path) as file:
        chunk = file[column].id.get_chunk_info(0)
    damaged = bytearray(path.read_bytes())
    damaged[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"train/000001\.h5 is damaged .* collect\.py") as error:
        Dataset.open(tmp_path, "toy").load([column])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_truncated_file_is_noticed_and_named(tmp_path: Path, keep: float) -> None:
    make_dataset(tmp_path)
    path = episode_path(tmp_path / "toy", "train", 2)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(UserError, match=r"train/000002\.h5 is damaged"):
        Dataset.open(tmp_path, "toy").load(["actions"])


def test_every_damaged_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    """The structure of a file carries checksums as well: no byte changes what is read unnoticed."""
    make_dataset(tmp_path, lengths=(20,))
    path = episode_path(tmp_path / "toy", "train", 0)
    intact = path.read_bytes()
    dataset = Dataset.open(tmp_path, "toy")
    expected = dataset.read_episode("train", 0)
    noticed = 0
    for position in np.random.default_rng(0).integers(0, len(intact), 300):
        damaged = bytearray(intact)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            read = dataset.read_episode("train", 0)
        except UserError:
            noticed += 1
        else:
            for name, array in expected.items():
                np.testing.assert_array_equal(read[name], array)
    assert noticed > 100


def test_columns_of_different_length_are_refused(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    with h5py.File(episode_path(tmp_path / "toy", "train", 0), "a") as file:
        file["actions"].resize(119, axis=0)
    with pytest.raises(UserError, match=r"000000\.h5 is damaged .*\[119, 120\] rows"):
        Dataset.open(tmp_path, "toy").load(["actions", "terminals"])


def test_missing_dataset_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        Dataset.open(tmp_path, "nothing", ["env_kwargs.manipobj.num_cubes=3"])
    command = "python collect.py env_kwargs.manipobj.num_cubes=3 dataset_name=nothing"
    assert command in str(error.value)
    assert f"data_dir={tmp_path}" in str(error.value)


def test_incomplete_dataset_says_how_much_there_is(tmp_path: Path) -> None:
    make_dataset(tmp_path, wanted=10)
    with pytest.raises(UserError) as error:
        Dataset.open(tmp_path, "toy")
    assert "5 of 11 episodes" in str(error.value)
    assert "`python collect.py dataset_name=toy`" in str(error.value)


def test_deleted_episode_makes_the_dataset_incomplete(tmp_path: Path) -> None:
    make_dataset(tmp_path, complete=True)
    episode_path(tmp_path / "toy", "train", 1).unlink()
    with pytest.raises(UserError, match="4 of 5 episodes"):
        Dataset.open(tmp_path, "toy")


def test_unknown_column_lists_the_known_ones(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    with pytest.raises(UserError, match=r"no column qpos .*actions, terminals, observations"):
        Dataset.open(tmp_path, "toy").load(["qpos"])


def test_newer_format_is_refused(tmp_path: Path) -> None:
    make_dataset(tmp_path, format_version=FORMAT_VERSION + 1)
    with pytest.raises(UserError, match=f"format version {FORMAT_VERSION + 1}"):
        Dataset.open(tmp_path, "toy")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other"}'])
def test_damaged_header_is_named(tmp_path: Path, text: str) -> None:
    make_dataset(tmp_path)
    (tmp_path / "toy" / HEADER).write_text(text)
    with pytest.raises(UserError, match=r"toy/header\.json"):
        Dataset.open(tmp_path, "toy")
