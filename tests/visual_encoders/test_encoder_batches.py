"""Images for encoders: the right ones, in an order that depends on seed and update alone."""

import pickle
from collections.abc import Iterable
from itertools import chain

import numpy as np
import pytest
import torch

from common.foundation.errors import UserError
from datasets.store import Dataset
from tests.conftest import NOISE_EPISODES as EPISODES
from tests.conftest import NOISE_ROWS as ROWS
from visual_encoders.images import Batches, ValidationBatches, open_frames, read_ahead

VIEWS = 2


@pytest.fixture(scope="module")
def stored(noise_data) -> np.ndarray:
    """All training images (E, T, V, 16, 16, 3)."""
    columns, _ = Dataset.open(noise_data, "noise").load(["observations"])
    return columns["observations"].reshape(EPISODES, ROWS, VIEWS, 16, 16, 3)


@pytest.fixture
def frames(noise_data):
    def make(**changes):
        options = {"div": 1, "limit": None, "holdout": 0.0, "size": 16} | changes
        return open_frames(str(noise_data), "noise", **options)

    return make


class Numbers:
    """Images that are their own number, 1 x 1 pixel."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def read(self, indices: np.ndarray) -> np.ndarray:
        return np.repeat(indices.astype(np.uint8), 3).reshape(-1, 1, 1, 3)


def seen(batch: torch.Tensor) -> list[int]:
    return batch[:, 0, 0, 0].tolist()


def joined(lists: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(lists))


def test_every_image_is_used_views_interleaved(frames, stored):
    train, valid = frames()
    assert (len(train), len(valid)) == (EPISODES * ROWS * VIEWS, ROWS * VIEWS)
    order = np.random.default_rng(0).permutation(len(train))
    assert np.array_equal(train.read(order), stored.reshape(-1, 16, 16, 3)[order])
    assert train.read(order[:0]).shape == (0, 16, 16, 3)
    twice = np.array([7, 7, 6])
    assert np.array_equal(train.read(twice), stored.reshape(-1, 16, 16, 3)[twice])


def test_the_limit_of_the_reference_takes_the_first_images_of_an_episode(frames, stored):
    train, valid = frames(limit=5)
    expected = stored.reshape(EPISODES, -1, 16, 16, 3)[:, :5].reshape(-1, 16, 16, 3)
    assert np.array_equal(train.read(np.arange(len(train))), expected)
    assert len(valid) == 5


def test_held_out_episodes_are_the_last_of_those_used(frames, stored):
    train, valid = frames(div=2, holdout=0.3)
    per_episode = ROWS * VIEWS
    assert (len(train), len(valid)) == (3 * per_episode, 2 * per_episode)
    expected = stored[3:5].reshape(-1, 16, 16, 3)
    assert np.array_equal(valid.read(np.arange(len(valid))), expected)
    assert len(frames(holdout=0.01)[1]) == per_episode  # at least one


def test_a_pass_has_no_repetition_and_every_pass_another_order():
    batches = Batches(Numbers(23), 5, seed=3)
    assert batches.per_pass == 4
    passes = [[seen(batches[4 * p + i]) for i in range(4)] for p in range(3)]
    for batch_list in passes:
        assert len(set(joined(batch_list))) == 20
    assert passes[0] != passes[1] != passes[2]
    assert seen(Batches(Numbers(23), 5, seed=3)[9]) == passes[2][1]  # from anywhere
    assert seen(Batches(Numbers(23), 5, seed=4)[9]) != passes[2][1]


def test_processes_share_a_batch():
    whole = Batches(Numbers(20), 6, seed=0)
    parts = [Batches(Numbers(20), 6, 0, rank, 3) for rank in range(3)]
    for update in (0, 5):
        shares = [seen(part[update]) for part in parts]
        assert [len(share) for share in shares] == [2, 2, 2]
        assert sorted(joined(shares)) == sorted(seen(whole[update]))
    with pytest.raises(UserError, match="batch_size=6 cannot be shared by 4 processes"):
        Batches(Numbers(20), 6, 0, 0, 4)


def test_validation_images_are_always_the_same():
    batches = ValidationBatches(Numbers(50), 11, 4, seed=1, rank=0, processes=1)
    images = [seen(batches[i]) for i in range(len(batches))]
    assert [len(batch) for batch in images] == [4, 4, 3]
    flat = joined(images)
    assert len(set(flat)) == 11 and flat == sorted(flat)
    again = ValidationBatches(Numbers(50), 11, 4, seed=1, rank=0, processes=1)
    assert [seen(again[i]) for i in range(3)] == images
    shares = [ValidationBatches(Numbers(50), 11, 4, 1, rank, 4)[2] for rank in range(4)]
    assert [seen(share) for share in shares] == [[n] for n in images[2]] + [[]]
    everything = ValidationBatches(Numbers(50), None, 4, 1, 0, 1)
    assert joined(seen(everything[i]) for i in range(13)) == list(range(50))
    assert seen(everything.examples(3)) == [0, 24, 49]
    assert len(everything.examples(0)) == 0
    with pytest.raises(UserError, match=r"no validation images; set encoder\.holdout=0\.1"):
        ValidationBatches(Numbers(0), None, 4, 1, 0, 1)


def test_reading_processes_give_the_same_batches(frames):
    batches = Batches(frames()[0], 8, seed=0)
    here = [batches[update] for update in range(3, 9)]
    there = read_ahead(pickle.loads(pickle.dumps(batches)), range(3, 9), 2, pin=False)
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
