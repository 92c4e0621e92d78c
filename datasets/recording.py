"""A dataset that grows while a run acts: its episodes as they end, one file each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from common.foundation.files import write_json
from datasets.episodes import EpisodeWriter
from datasets.store import HEADER, Columns, Dataset, describe_columns, episode_path, header_start
from envs.base import World


class GrowingDataset:
    """The training episodes of a run so far, as a dataset that others can read at any time.

    Its header tells of the episodes up to the last `publish`. Besides its columns an episode has
    `facts`, arrays that are not of its steps.

    Args:
        columns: shape and type of a row of each column. longest: rows of an episode at most.
        about: entries of the header besides the world's.
    """

    def __init__(
        self, folder: Path, world: World, columns: Columns, longest: int, about: Mapping[str, Any]
    ) -> None:
        self.folder, self.columns = folder, columns
        self._header = {
            **header_start(folder),
            **world.describe(),
            "max_episode_steps": longest,
            "pixels": "observations" in columns,
            "columns": describe_columns(columns),
            "qpos_layout": {},
            "complete": True,
            **about,
        }
        (folder / "train").mkdir(parents=True, exist_ok=True)

    def write(
        self, index: int, columns: Mapping[str, np.ndarray], facts: Mapping[str, np.ndarray]
    ) -> None:
        """Write episode `index`; in the place of one that a stopped run left there."""
        path = episode_path(self.folder, "train", index)
        with EpisodeWriter(path, self.columns, facts) as writer:
            for row in zip(*columns.values(), strict=True):
                writer.append(dict(zip(columns, row, strict=True)))

    def length(self, index: int) -> int:
        """Rows of an episode."""
        with h5py.File(episode_path(self.folder, "train", index), "r", locking=False) as file:
            return len(file["terminals"])

    def read(self, index: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Columns and facts of an episode. Raises `UserError` if it is missing or damaged."""
        columns = Dataset(self.folder, self._header).read_episode("train", index)
        with h5py.File(episode_path(self.folder, "train", index), "r", locking=False) as file:
            return columns, dict(file.attrs)

    def publish(self, episodes: int, rows: int) -> None:
        """Let the header tell of the first `episodes`, which have so many rows together."""
        counts = {"episodes": {"train": episodes, "val": 0}, "rows": {"train": rows, "val": 0}}
        write_json(self.folder / HEADER, self._header | counts, sealed=True)
