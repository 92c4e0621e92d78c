"""Ends of episodes by the names that other projects give them."""

from pathlib import Path

import numpy as np
import pytest

from common.foundation.errors import UserError
from datasets.convert import export_npz, import_npz
from datasets.npz import NpzFile
from datasets.npz_dataset import NpzDataset
from datasets.store import Dataset
from tests.helpers.point_world import point_world

LENGTHS = [5, 3, 4]
LAST = np.isin(np.arange(12), [4, 7, 11])
FALLEN, TIMED_OUT = np.arange(12) == 7, np.isin(np.arange(12), [4, 11])
NUMBER = np.repeat([7, 2, 3], LENGTHS)


def save(path: Path, **columns: np.ndarray) -> Path:
    """A file of twelve rows of the point world, without ends but for those in `columns`."""
    rng = np.random.default_rng(0)
    own = {
        "actions": rng.uniform(-1, 1, (12, 2)).astype(np.float32),
        "qpos": rng.uniform(-1, 1, (12, 2)).astype(np.float32),
    }
    np.savez_compressed(path, **own, **columns)
    return path


@pytest.mark.parametrize(
    "columns",
    [
        {"terminals": FALLEN, "timeouts": TIMED_OUT},  # D4RL
        {"terminals": FALLEN, "timeouts": LAST},  # both at once
        {"terminals": np.zeros(12), "timeouts": LAST},
        {"terminations": FALLEN, "truncations": TIMED_OUT},  # Minari, Gymnasium
        {"terminated": FALLEN, "truncated": TIMED_OUT},
        {"terminateds": FALLEN, "truncateds": TIMED_OUT},
        {"dones": FALLEN.astype(np.float32), "TimeOuts": TIMED_OUT.astype(np.int8)},
        {"is_first": np.roll(LAST, 1), "is_terminal": FALLEN, "is_last": LAST},  # RLDS
        {"episode_starts": np.roll(LAST, 1)},  # Stable-Baselines
        {"terminals": FALLEN, "episode_index": NUMBER},  # LeRobot
        {"episode_id": NUMBER.astype(np.float32)},
        {"terminals": FALLEN, "episode_ends": np.array([5, 8, 12])},  # Diffusion Policy
        {"traj_ends": np.array([5.0, 8.0, 12.0])},
        {"episode_lengths": np.array(LENGTHS, np.uint8)},
        {"traj_lens": np.array(LENGTHS)},
    ],
    ids=lambda columns: "+".join(columns),
)
def test_episodes_end_where_any_column_says_so(tmp_path: Path, columns: dict, warned) -> None:
    dataset = NpzDataset(save(tmp_path / "points.npz", **columns), point_world())
    assert dataset.lengths().tolist() == LENGTHS
    assert dataset.header["source"]["train"]["ends"] == list(columns)
    assert dataset.header["max_episode_steps"] == 5
    terminals = dataset.load(["terminals"])[0]["terminals"]
    assert terminals.dtype == bool
    np.testing.assert_array_equal(terminals, LAST)
    with dataset.reader("terminals") as read:
        assert [read(index).tolist() for index in (0, 2)] == [
            [False] * 4 + [True],
            [False] * 3 + [True],
        ]
    assert warned == []  # nothing that is used is called left out


def test_columns_of_another_meaning_do_not_end_episodes(tmp_path: Path) -> None:
    others = {"done_steps": np.arange(12), "episode_returns": np.ones(12), "masks": ~LAST}
    path = save(tmp_path / "points.npz", terminals=LAST, **others)
    dataset = NpzDataset(path, point_world())
    assert dataset.lengths().tolist() == LENGTHS
    assert "ends" not in dataset.header["source"]["train"]
    np.testing.assert_array_equal(dataset.load(["masks"])[0]["masks"], ~LAST)


ODD, NAN = np.where(LAST, 0.5, 0), np.where(np.arange(12) == 3, np.nan, LAST)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"terminals": NAN}, "column terminals has NaN or infinity in row 3"),
        ({"terminals": ODD}, r"column terminals has 0\.5 in row 4; marks are 0 or 1"),
        ({"terminals": -1 * LAST}, "column terminals has -1 in row 4"),
        ({"terminals": LAST, "timeouts": LAST * 2}, "column timeouts has 2 in row 4"),
        ({"terminals": LAST, "timeouts": LAST[:, None]}, r"timeouts has rows of shape \(1,\)"),
        ({"terminals": LAST, "timeouts": LAST[1:]}, "timeouts has 11 numbers for 12 rows"),
        (
            {"terminals": LAST, "timeouts": LAST.astype(object)},
            "timeouts: it holds object, not num",
        ),
        (
            {"terminals": LAST, "infos/timeouts": LAST},
            "column infos/timeouts: this is not a column",
        ),
        (
            {"terminals": LAST, "TimeLimit.truncated": LAST},
            "TimeLimit.truncated: this is not a col",
        ),
        ({"terminals": LAST, "truncations": np.array(True)}, "truncations: a single number"),
        ({"episode_id": np.where(LAST, np.nan, 0)}, "episode_id has NaN or infinity in row 4"),
        ({"episode_index": np.arange(3)}, "episode_index has 3 numbers for 12 rows"),
        ({"episode_ends": np.array([4, 7, 11])}, "episode_ends has not the ends .* up to 12"),
        ({"episode_ends": np.array([5, 5, 12])}, "episode_ends has not the ends"),
        ({"episode_ends": np.array([4.5, 12])}, "episode_ends has not the ends"),
        ({"episode_ends": np.zeros(0, int)}, "episode_ends has not the ends"),
        ({"episode_lengths": np.array([5, 3])}, "episode_lengths has not the lengths .* 12 rows"),
        ({"episode_lengths": np.array([13, -1])}, "episode_lengths has not the lengths"),
        (
            {"terminals": FALLEN, "timeouts": FALLEN},
            "of its terminals and timeouts is not set; set",
        ),
        ({"terminals": FALLEN}, r"within an episode: .* row 11 may end .* rows from 8 on"),
        ({"terminals": np.zeros(12)}, "within an episode: .* rows from 0 on"),
        ({}, "column terminals is missing"),
    ],
)
def test_what_does_not_tell_the_ends_is_refused_by_name(
    tmp_path: Path, columns: dict, message: str
) -> None:
    path = save(tmp_path / "points.npz", **columns)
    with pytest.raises(UserError, match=message) as error:
        NpzDataset(path, point_world())
    assert str(path) in str(error.value) and "get the file again" not in str(error.value)


def test_an_import_keeps_the_ends(tmp_path: Path) -> None:
    """And, exported, they are found again."""
    path = save(tmp_path / "points.npz", timeouts=TIMED_OUT, episode_ends=np.array([5, 8, 12]))
    import_npz(path, "copy", tmp_path, point_world(), "again")
    dataset = Dataset.open(tmp_path, "copy")
    assert dataset.lengths().tolist() == LENGTHS
    episode = dataset.read_episode("train", 1)
    assert sorted(episode) == ["actions", "qpos", "terminals", "timeouts"]
    assert episode["terminals"].tolist() == [False, False, True]
    assert not episode["timeouts"].any()
    export_npz(dataset, tmp_path / "out.npz")
    with NpzFile(tmp_path / "out.npz") as file:
        np.testing.assert_array_equal(file.read("terminals"), LAST)
    assert NpzDataset(tmp_path / "out.npz", point_world()).lengths().tolist() == LENGTHS
