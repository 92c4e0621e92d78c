"""Small datasets for tests, made by the point world, and comparisons of them."""

from pathlib import Path
from typing import Any

from datasets.collection import EpisodeRecipe, collect, make_header
from datasets.filling import filling
from datasets.shards import Part
from datasets.source import SPLITS, EpisodeId, EpisodeSource
from datasets.store import Dataset
from envs.base import World
from tests.helpers.point_world import COLLECT, PointWorld, point_world


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
    collect(world or point_world(), name=name, data_dir=data_dir, **(arguments | changes))
    return Dataset.open(data_dir, name)


def record(
    data_dir: Path,
    name: str = "points",
    world: PointWorld | None = None,
    *,
    episodes: int = 10,
    seed: int = 3,
    pixels: bool = False,
    shard: int = 0,
    num_shards: int = 1,
) -> Dataset:
    """The same as `run`, in this process, which is faster."""
    part = Part({"train": episodes, "val": episodes // 10}, shard, num_shards)
    folder = data_dir / (name + part.suffix)
    recipe = EpisodeRecipe(folder, world or point_world(), COLLECT, seed, pixels, part)
    env = recipe.make()
    with filling(folder, make_header(recipe, "python collect.py")) as dataset:
        for split in SPLITS:
            for index in dataset.missing(split):
                list(recipe.run(env, EpisodeId(split, index)))
    return Dataset.open(data_dir, folder.name)


def assert_same_data(a: EpisodeSource, b: EpisodeSource) -> None:
    for split in SPLITS:
        assert a.lengths(split).tolist() == b.lengths(split).tolist()
        for index in range(len(a.lengths(split))):
            first, second = a.read_episode(split, index), b.read_episode(split, index)
            assert first.keys() == second.keys()
            for name, array in first.items():
                assert array.dtype == second[name].dtype
                assert array.tobytes() == second[name].tobytes(), (split, index, name)
