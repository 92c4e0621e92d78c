"""A disk that takes no more: one line, and everything that was there before is still there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from common.foundation.errors import UserError
from common.runs import checkpoint
from datasets import merge as merging
from datasets.convert import export_npz, import_npz
from datasets.episodes import EpisodeWriter
from datasets.store import Dataset, episode_path
from tests.faults.disk import limited
from tests.helpers.datasets import assert_same_data, record, run
from tests.helpers.point_world import point_world

COLUMNS = {"actions": ((2,), "float32"), "observations": ((64, 64, 3), "uint8")}


def write(path: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    with EpisodeWriter(path, COLUMNS) as writer:
        for _ in range(rows):
            frame = rng.integers(0, 256, (64, 64, 3), np.uint8)
            writer.append({"actions": np.zeros(2, np.float32), "observations": frame})


def test_an_episode_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "000000.h5"
    write(path, 60)
    before, size = path.read_bytes(), path.stat().st_size
    for room in (0, 100, 3000, size // 3, size - 40_000, size - 1):
        with limited(room), pytest.raises(UserError, match=r"cannot write .*: File too large"):
            write(path, 60)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]
    with limited(size):
        write(path, 60)
    assert path.read_bytes() == before


def test_a_collection_continues_when_there_is_room_again(tmp_path: Path) -> None:
    whole = record(tmp_path, "whole", pixels=True, episodes=3)
    folder = record(tmp_path, "again", pixels=True, episodes=3).folder
    missing = episode_path(folder, "train", 1)
    missing.unlink()
    with limited(20_000), pytest.raises(UserError) as error:
        run(tmp_path, "again", pixels=True, episodes=3)
    text = str(error.value)
    assert "train episode 1 failed: cannot write" in text
    assert "File too large; 2 of 3 episodes are kept, `python collect.py" in text
    assert "\n" not in text
    assert not missing.exists()
    assert_same_data(record(tmp_path, "again", pixels=True, episodes=3), whole)


def test_a_checkpoint_stays(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, {"a": torch.zeros(1000)}, {"step": 1})
    with limited(6000), pytest.raises(UserError, match=r"cannot write .*last\.saf.*too large"):
        checkpoint.save(path, {"a": torch.ones(2000)}, {"step": 2})
    tensors, meta = checkpoint.load(path)
    assert meta == {"step": 1} and not tensors["a"].any()
    assert list(tmp_path.iterdir()) == [path]


def test_conversions_leave_nothing_half_done(tmp_path: Path) -> None:
    dataset = record(tmp_path, pixels=True)
    file = tmp_path / "out.npz"
    with limited(50_000), pytest.raises(UserError, match=r"cannot write .*too large"):
        export_npz(dataset, file)
    assert not list(tmp_path.glob("*out*"))
    export_npz(dataset, file)
    with limited(20_000), pytest.raises(UserError, match=r"cannot write .*too large"):
        import_npz(file, "copy", tmp_path, point_world(), "python -m datasets.convert import")
    with pytest.raises(UserError, match=r"0 of 11 episodes; `python -m datasets\.convert import`"):
        Dataset.open(tmp_path, "copy")
    import_npz(file, "copy", tmp_path, point_world(), "python -m datasets.convert import")
    assert_same_data(Dataset.open(tmp_path, "copy"), dataset)


def test_a_merge_that_has_to_copy_leaves_no_half_file(tmp_path: Path, monkeypatch) -> None:
    for seed in (1, 2):
        record(tmp_path, str(seed), seed=seed, pixels=True)

    def refuse(*_) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(merging.os, "link", refuse)
    with limited(20_000), pytest.raises(UserError, match=r"cannot write .*000000.*too large"):
        merging.merge("all", ["1", "2"], tmp_path, "python -m datasets.merge all 1 2")
    assert list((tmp_path / "all" / "train").iterdir()) == []
    merging.merge("all", ["1", "2"], tmp_path, "python -m datasets.merge all 1 2")
    assert len(Dataset.open(tmp_path, "all").lengths()) == 20


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "points"
    (folder / ".lock").mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot make the folder .*points: Is a directory"):
        record(tmp_path)
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "train").touch()
    with pytest.raises(UserError, match=r"cannot make the folder .*others: File exists"):
        record(tmp_path, "others")
