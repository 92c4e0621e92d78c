"""Small datasets for tests, made by the point world, and comparisons of them."""

import contextlib
import copy
import io
from pathlib import Path
from typing import Any

from datasets.collection import collect
from datasets.source import SPLITS, EpisodeSource
from datasets.store import Dataset
from envs.base import World
from tests.helpers.point_world import COLLECT, point_world


def run(
    data_dir: Path, name: str = "points", world: World | None = None, **changes: Any
) -> Dataset:
    """Collect ten episodes and one of validation."""
    arguments = {
        "episodes": 10,
        "seed": 3,
        "settings": COLLECT,
        "pixels": False,
        "workers": 1,
        "progress": False,
        "command": f"python collect.py dataset_name={name}",
    }
    folder = collect(world or point_world(), name=name, data_dir=data_dir, **(arguments | changes))
    return Dataset.open(data_dir, folder.name)


def record(
    data_dir: Path, name: str = "points", world: World | None = None, **changes: Any
) -> Dataset:
    """The same in this process, which is faster, and silently."""
    near = copy.copy(world or point_world())
    near.in_process = True
    with contextlib.redirect_stdout(io.StringIO()):
        return run(data_dir, name, near, **changes)


def assert_same_data(a: EpisodeSource, b: EpisodeSource) -> None:
    for split in SPLITS:
        assert a.lengths(split).tolist() == b.lengths(split).tolist()
        for index in range(len(a.lengths(split))):
            first, second = a.read_episode(split, index), b.read_episode(split, index)
            assert first.keys() == second.keys()
            for name, array in first.items():
                assert array.dtype == second[name].dtype
                assert array.tobytes() == second[name].tobytes(), (split, index, name)
