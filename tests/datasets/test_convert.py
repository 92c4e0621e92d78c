"""Import and export of the reference's files: round trips, interruptions, memory, refusals."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from common.foundation.errors import UserError
from datasets import convert
from datasets.convert import export_npz, import_npz
from datasets.episodes import EpisodeWriter
from datasets.npz_dataset import NpzDataset
from datasets.store import Dataset, episode_path
from tests.helpers.datasets import assert_same_data, record
from tests.helpers.point_world import point_world

COMMAND = "python -m datasets.convert import FILE NAME"


def take_in(file: Path, data_dir: Path, name: str = "copy") -> Dataset:
    import_npz(file, name, data_dir, point_world(), COMMAND)
    return Dataset.open(data_dir, name)


def foreign(path: Path, episodes: int = 3, **changes: np.ndarray) -> Path:
    """A file as others write it: `episodes` of four rows."""
    rows = 4 * episodes
    rng = np.random.default_rng(0)
    columns = {
        "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "terminals": np.arange(rows) % 4 == 3,
        "qpos": rng.standard_normal((rows, 2), np.float32),
        "state_observations": rng.standard_normal((rows, 2), np.float32),
    }
    np.savez_compressed(path, **(columns | changes))
    return path


def test_there_and_back(tmp_path: Path) -> None:
    dataset = record(tmp_path, pixels=True)
    made = export_npz(dataset, tmp_path / "out.npz")
    assert made == [tmp_path / "out.npz", tmp_path / "out-val.npz"]
    with np.load(made[0], allow_pickle=False) as loaded:  # as the reference reads it
        assert loaded["observations"].shape == (300, 2, 16, 16, 3)
        np.testing.assert_array_equal(loaded["terminals"], np.arange(300) % 30 == 29)
        np.testing.assert_array_equal(loaded["qpos"], dataset.load(["qpos"])[0]["qpos"])
    copy = take_in(made[0], tmp_path)
    assert_same_data(dataset, copy)
    assert_same_data(copy, NpzDataset(made[0], point_world()))
    header = copy.header
    assert header["complete"] and header["rows"] == {"train": 300, "val": 30}
    assert header["source"]["train"]["file"] == "out.npz"
    assert header["command"] == COMMAND
    same = ("environment", "columns", "qpos_layout", "pixels", "episodes")
    assert [header[key] for key in same] == [dataset.header[key] for key in same]


def test_an_interrupted_import_continues(tmp_path: Path, monkeypatch) -> None:
    file = foreign(tmp_path / "out.npz")
    real, calls = EpisodeWriter.append, []

    def stop(self, row) -> None:
        calls.append(row)
        if len(calls) == 10:
            raise KeyboardInterrupt
        real(self, row)

    monkeypatch.setattr(EpisodeWriter, "append", stop)
    with pytest.raises(KeyboardInterrupt):
        take_in(file, tmp_path)
    with pytest.raises(UserError, match=f"2 of 3 episodes; `{COMMAND}` continues it"):
        Dataset.open(tmp_path, "copy")
    kept = episode_path(tmp_path / "copy", "train", 1)
    before = kept.stat().st_mtime_ns
    assert_same_data(take_in(file, tmp_path), NpzDataset(file, point_world()))
    assert kept.stat().st_mtime_ns == before
    assert len(calls) == 10 + 4  # the third episode once more


def test_another_file_does_not_mix_in(tmp_path: Path) -> None:
    take_in(foreign(tmp_path / "one.npz"), tmp_path)
    other = foreign(tmp_path / "two.npz", qpos=np.zeros((12, 2), np.float32))
    with pytest.raises(UserError, match=r"copy was made with source\.train\.file=one\.npz"):
        take_in(other, tmp_path)
    other.rename(tmp_path / "one.npz")
    with pytest.raises(UserError, match=r"copy was made with source\.train\.crc32\.qpos="):
        take_in(tmp_path / "one.npz", tmp_path)


def test_a_value_that_is_not_finite_names_the_episode(tmp_path: Path) -> None:
    qpos = np.zeros((12, 2), np.float32)
    qpos[6, 1] = np.nan
    file = foreign(tmp_path / "out.npz", qpos=qpos)
    with pytest.raises(UserError, match=r"out\.npz, train episode 1: column qpos: .* not finite"):
        take_in(file, tmp_path)


def test_memory_is_that_of_an_episode(tmp_path: Path) -> None:
    images = np.zeros((1200, 2, 64, 64, 3), np.uint8)  # 29 MB, an episode of 100 rows has 2.5
    images[:, :, 10:20] = 255
    file = tmp_path / "out.npz"
    foreign(file, 300, observations=images, terminals=np.arange(1200) % 100 == 99)
    tracemalloc.start()
    dataset = take_in(file, tmp_path)
    export_npz(dataset, tmp_path / "again.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < images.nbytes / 3


def test_files_are_never_overwritten(tmp_path: Path) -> None:
    dataset = take_in(foreign(tmp_path / "one.npz"), tmp_path)
    for taken in ("out.npz", "out-val.npz"):
        (tmp_path / taken).touch()
        with pytest.raises(UserError, match=rf"{taken} exists; remove it"):
            export_npz(dataset, tmp_path / "out.npz")
        (tmp_path / taken).unlink()
    with pytest.raises(UserError, match=r"must end in \.npz"):
        export_npz(dataset, tmp_path / "out")
    assert export_npz(dataset, tmp_path / "out.npz") == [tmp_path / "out.npz"]


def test_a_damaged_episode_leaves_no_file(tmp_path: Path) -> None:
    dataset = take_in(foreign(tmp_path / "one.npz"), tmp_path)
    episode_path(dataset.folder, "train", 1).write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"000001\.h5 is damaged"):
        export_npz(dataset, tmp_path / "out.npz")
    assert not list(tmp_path.glob("*out*"))


def test_the_commands(tiny_data: Path, tmp_path: Path, capsys) -> None:
    file = str(tmp_path / "cubes.npz")
    convert.main(["--data-dir", str(tiny_data), "export", "tiny", file])
    cubes = "env_kwargs.manipobj.num_cubes=1"
    convert.main(["--data-dir", str(tmp_path), "import", file, "copy", cubes])
    assert capsys.readouterr().out.split() == [file, str(tmp_path / "copy")]
    copy = Dataset.open(tmp_path, "copy")
    assert_same_data(copy, Dataset.open(tiny_data, "tiny"))
    again = f"python -m datasets.convert --data-dir {tmp_path} import {file} copy {cubes}"
    assert copy.header["command"] == again
    with pytest.raises(SystemExit) as ending:
        convert.main(["import", file, "../copy", cubes])
    assert ending.value.code == 2
    assert "error: dataset_name=../copy must be a plain folder name\n" in capsys.readouterr().err
