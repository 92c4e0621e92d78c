"""Episodes that their collector rejects are repeated, and do not depend on who repeats them."""

import numpy as np
import pytest

from common.foundation.errors import UserError
from datasets.collection import collect
from datasets.store import Dataset
from envs.base import EpisodeRejected
from tests.helpers.point_world import COLLECT, PointCollector, PointSettings, PointWorld


class PickyCollector(PointCollector):
    """Rejects, in the middle, the episodes whose first draw is too small."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def reset(self, obs, info, rng) -> None:
        super().reset(obs, info, rng)
        self.left, self.fit = 5, rng.uniform() >= self.limit

    def act(self, info):
        self.left -= 1
        if self.left < 0 and not self.fit:
            raise EpisodeRejected("it began badly")
        return super().act(info)


class PickyWorld(PointWorld):
    limit = 0.5

    def collector(self, env, settings):
        return PickyCollector(self.limit)


class EasyWorld(PickyWorld):
    limit = 0.0


class AlwaysPickyWorld(PickyWorld):
    limit = 2.0


def run(folder, world_class, workers: int) -> Dataset:
    world = world_class(PointSettings(), max_episode_steps=10)
    collect(
        world,
        name="points",
        data_dir=folder,
        episodes=12,
        seed=0,
        settings=COLLECT,
        pixels=False,
        workers=workers,
        progress=False,
    )
    return Dataset.open(folder, "points")


def test_rejected_episodes_are_replaced_whoever_collects(tmp_path):
    picky = run(tmp_path / "one", PickyWorld, 1)
    columns, lengths = picky.load(["qpos", "actions"])
    assert lengths.tolist() == [10] * 12
    again, _ = run(tmp_path / "two", PickyWorld, 2).load(["qpos", "actions"])
    np.testing.assert_array_equal(columns["qpos"], again["qpos"])
    # those that were fit at once are the same as without rejections
    easy, _ = run(tmp_path / "easy", EasyWorld, 1).load(["qpos", "actions"])
    same = (columns["qpos"] == easy["qpos"]).reshape(12, -1).all(axis=1)
    assert 2 <= same.sum() <= 10
    starts = columns["qpos"].reshape(12, 10, -1)[:, 0]
    assert len(np.unique(starts, axis=0)) == 12
    assert not list(picky.folder.glob("*/.*.tmp"))


def test_an_episode_that_is_always_rejected_is_an_error(tmp_path):
    with pytest.raises(UserError, match="rejected 100 times, at last because it began badly"):
        run(tmp_path, AlwaysPickyWorld, 1)
