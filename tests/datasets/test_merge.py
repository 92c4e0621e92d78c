"""Shards become one dataset: episodes in order, files untouched, nothing twice."""

import os
from pathlib import Path

import pytest

from common.foundation.errors import UserError
from common.foundation.files import read_json, write_json
from datasets import merge as module
from datasets.merge import merge
from datasets.source import SPLITS
from datasets.store import Dataset, episode_path
from tests.helpers.datasets import record
from tests.helpers.point_world import point_world

COMMAND = "python -m datasets.merge all one two"


def make_shards(data_dir: Path, **changes) -> list[Dataset]:
    """`one` of seed 1 and `two` of seed 2, eleven episodes each; `changes` to the second."""
    second = {"name": "two", "seed": 2} | changes
    return [record(data_dir, "one", seed=1), record(data_dir, **second)]


def join(data_dir: Path, *shards: str) -> Dataset:
    merge("all", shards or ("one", "two"), data_dir, COMMAND)
    return Dataset.open(data_dir, "all")


def contents(dataset: Dataset) -> dict[str, list[bytes]]:
    return {
        split: [episode_path(dataset.folder, split, i).read_bytes() for i in episodes]
        for split in SPLITS
        if (episodes := dataset.episodes(split))
    }


def test_episodes_follow_shard_after_shard(tmp_path: Path) -> None:
    one, two = make_shards(tmp_path, episodes=20)
    merged = join(tmp_path)
    assert merged.lengths().tolist() == [30] * 30
    for split in SPLITS:
        assert contents(merged)[split] == contents(one)[split] + contents(two)[split]
    header = merged.header
    assert header["complete"]
    assert header["episodes"] == {"train": 30, "val": 3}
    assert header["rows"] == {"train": 900, "val": 90}
    assert [shard["name"] for shard in header["shards"]] == ["one", "two"]
    assert [shard["seed"] for shard in header["shards"]] == [1, 2]
    assert header["seed"] is None
    assert header["command"] == COMMAND
    assert header["columns"] == one.header["columns"]


def test_files_are_links_and_outlive_their_shards(tmp_path: Path) -> None:
    one, _ = make_shards(tmp_path)
    merged = join(tmp_path)
    path = episode_path(one.folder, "train", 3)
    assert path.samefile(episode_path(merged.folder, "train", 3))
    before = contents(merged)
    path.unlink()
    assert contents(merged) == before


def test_files_are_copied_where_links_are_not_possible(tmp_path: Path, monkeypatch) -> None:
    make_shards(tmp_path)
    linked = contents(join(tmp_path))

    def refuse(*_) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(module.os, "link", refuse)
    merge("copied", ["one", "two"], tmp_path, COMMAND)
    copied = Dataset.open(tmp_path, "copied")
    assert contents(copied) == linked
    assert os.stat(episode_path(copied.folder, "train", 0)).st_nlink == 1


def test_an_interrupted_merge_continues(tmp_path: Path, monkeypatch) -> None:
    make_shards(tmp_path)
    real, calls = os.link, []

    def stop(*paths) -> None:
        calls.append(paths)
        if len(calls) == 14:
            raise KeyboardInterrupt
        real(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "link", stop)
        with pytest.raises(KeyboardInterrupt):
            join(tmp_path)
    with pytest.raises(UserError, match=f"13 of 22 episodes; `{COMMAND}` continues it"):
        Dataset.open(tmp_path, "all")
    merged = join(tmp_path)
    merge("undisturbed", ["one", "two"], tmp_path, COMMAND)
    assert contents(merged) == contents(Dataset.open(tmp_path, "undisturbed"))


def test_merged_datasets_can_be_merged(tmp_path: Path) -> None:
    make_shards(tmp_path)
    record(tmp_path, "three", seed=5)
    join(tmp_path)
    merge("more", ["all", "three"], tmp_path, COMMAND)
    more = Dataset.open(tmp_path, "more")
    assert [shard["name"] for shard in more.header["shards"]] == ["one", "two", "three"]
    assert len(more.lengths()) == 30
    with pytest.raises(UserError, match="two and two hold the same episodes, both are of seed 2"):
        merge("twice", ["all", "two"], tmp_path, COMMAND)


def test_episodes_are_never_taken_twice(tmp_path: Path) -> None:
    make_shards(tmp_path, seed=1)
    with pytest.raises(
        UserError, match="one and two hold the same episodes, both are of seed 1; leave"
    ):
        join(tmp_path)
    with pytest.raises(UserError, match="one and one hold the same episodes"):
        join(tmp_path, "one", "one")
    assert not (tmp_path / "all").exists()


def test_imported_files_are_known_by_their_checksums(tmp_path: Path) -> None:
    for dataset in make_shards(tmp_path):
        file = f"{dataset.folder.name}.npz"  # whatever it was called
        source = {"train": {"file": file, "crc32": {"qpos": 5}}}
        write_json(dataset.folder / "header.json", dataset.header | {"source": source})
    with pytest.raises(UserError, match=r"one and two hold the same .*come from two\.npz"):
        join(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixels": True}, "pixels is False in the first and True in the second"),
        ({"world": point_world(max_episode_steps=31)}, "max_episode_steps is 30"),
        ({"world": point_world(step_seconds=0.001)}, r"settings\.step_seconds is 0\.0"),
    ],
)
def test_shards_that_differ_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    make_shards(tmp_path, **changes)
    with pytest.raises(UserError, match=f"do not fit together: {message}"):
        join(tmp_path)


def test_incomplete_and_missing_shards_are_refused(tmp_path: Path) -> None:
    one, _ = make_shards(tmp_path)
    with pytest.raises(UserError, match="no dataset three"):
        join(tmp_path, "one", "three")
    episode_path(one.folder, "train", 4).unlink()
    with pytest.raises(UserError, match="one is incomplete"):
        join(tmp_path)


def test_other_shards_do_not_mix_in(tmp_path: Path) -> None:
    make_shards(tmp_path)
    record(tmp_path, "three", seed=5)
    join(tmp_path)
    with pytest.raises(UserError, match=r"all was made with shards="):
        join(tmp_path, "one", "three")
    with pytest.raises(UserError, match=r"all was made with seed=None, not 3"):
        record(tmp_path, "all", episodes=20)


def test_the_command_takes_folders_too(tmp_path: Path, capsys) -> None:
    make_shards(tmp_path / "elsewhere")
    shards = [str(tmp_path / "elsewhere" / name) for name in ("one", "two")]
    module.main(["--data-dir", str(tmp_path), "all", *shards])
    assert capsys.readouterr().out == f"{tmp_path / 'all'}\n"
    command = read_json(tmp_path / "all" / "header.json")["command"]
    assert command == " ".join(
        ["python -m datasets.merge --data-dir", str(tmp_path), "all", *shards]
    )


# --- parts of one collection ------------------------------------------------------------------


def test_parts_become_what_one_collection_makes(tmp_path: Path) -> None:
    """Same files, same header but for the command; given in any order, linked and not copied."""
    changes = {"episodes": 23, "pixels": True}
    whole = record(tmp_path, "whole", **changes)
    parts = [record(tmp_path, "part", shard=i, num_shards=3, **changes) for i in range(3)]
    assert [len(part.lengths()) for part in parts] == [7, 8, 8]
    assert [len(part.lengths("val")) for part in parts] == [0, 1, 1]
    merge("joined", [parts[i].folder.name for i in (2, 0, 1)], tmp_path, COMMAND)
    joined = Dataset.open(tmp_path, "joined")
    assert contents(joined) == contents(whole)
    own = {"name": "joined", "command": COMMAND}
    assert joined.header == whole.header | own
    last = episode_path(joined.folder, "train", 22)
    assert last.samefile(episode_path(parts[2].folder, "train", 7))
    record(tmp_path, "joined", **changes)  # nothing is left to collect, and nothing differs


def test_parts_are_joined_whole_and_once(tmp_path: Path) -> None:
    def make(shard: int, num_shards: int = 3, **changes) -> str:
        return record(tmp_path, shard=shard, num_shards=num_shards, **changes).folder.name

    names = [make(shard) for shard in range(3)]
    with pytest.raises(UserError, match="of 3 parts, shard 0, 2 is not given"):
        join(tmp_path, names[1])
    with pytest.raises(UserError, match="there are 3 parts, and 4 are given"):
        join(tmp_path, *names, names[0])
    with pytest.raises(UserError, match=r"part\.num_shards is 3 in the first and 2 in the second"):
        join(tmp_path, names[0], make(1, 2))
    with pytest.raises(UserError, match="seed is 3 in the first and 4 in the second"):
        join(tmp_path, names[0], make(0, name="other", seed=4))
    record(tmp_path, "two", seed=2)
    with pytest.raises(UserError, match=r"points-part0of3 and .*two do not fit together: part is"):
        join(tmp_path, names[0], "two")


@pytest.mark.parametrize(
    ("shard", "num_shards", "message"),
    [
        (3, 3, "shard=3 is too large; with num_shards=3 the last one is 2"),
        (0, 11, "num_shards=11 is more than num_collect_episodes=10"),
    ],
)
def test_impossible_parts_are_refused(tmp_path: Path, shard, num_shards, message) -> None:
    with pytest.raises(UserError, match=message):
        record(tmp_path, shard=shard, num_shards=num_shards)
    assert list(tmp_path.iterdir()) == []
