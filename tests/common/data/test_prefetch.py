"""Where training data lie, and batches that are fetched ahead from main memory."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from common.data.draws import FetchedDraws
from common.data.wants import Sequences, Transitions
from common.foundation.device import seeded_generator as seeded
from common.foundation.errors import UserError
from common.runs import loading as training_data
from common.runs.loading import RESERVED
from common.settings.config import compose
from tests.helpers.agents import CPU
from tests.helpers.updates import make_buffer, make_draws

CUDA = torch.device("cuda")
ROWS, NUMBERS = 1000, 6  # rows of 6 numbers and actions of 2


class Nested:
    """Batches that are trees: the states, and deeper down their sums, which differ by sample."""

    rewards = False

    def sample(self, buffer, size: int, generator: torch.Generator) -> TensorDict:
        obs = buffer.sample(size, generator).obs
        deeper = TensorDict({"sum": obs.flatten(1).sum(1)}, batch_size=[size])
        return TensorDict({"obs": obs, "deeper": deeper}, batch_size=[size])


WANTS = [Transitions(5), Sequences(4, to_end=False), Nested()]


@pytest.mark.parametrize("wants", WANTS)
def test_batches_fetched_ahead_are_the_same(wants) -> None:
    draws = make_draws(make_buffer(), wants=wants)
    fetched = FetchedDraws(draws, CPU)
    for step in (1, 2, 3, 7, 8):  # a continued run begins anywhere
        batch, generator = fetched(step)
        expected = draws(step)[0]
        assert type(batch) is type(expected) and (batch == expected).all()
        again = FetchedDraws(draws, CPU)(step)[1]
        assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=again))


@pytest.mark.parametrize("wants", WANTS)
def test_batches_of_every_kind_go_to_the_device_whole(wants) -> None:
    draws = make_draws(make_buffer(), wants=wants)
    fetched = FetchedDraws(draws, CPU)
    fetched._device = torch.device("meta")
    with pytest.MonkeyPatch.context() as patch:  # which draws nothing by itself
        patch.setattr("common.data.draws.seeded_generator", lambda device, *_: seeded(CPU, *_))
        batch, _ = fetched(1)
    expected = draws(1)[0]
    assert type(batch) is type(expected) and batch.batch_size == (16,)
    leaves = dict(batch.items(include_nested=True, leaves_only=True))
    assert leaves.keys() == dict(expected.items(include_nested=True, leaves_only=True)).keys()
    assert {leaf.device.type for leaf in leaves.values()} == {"meta"}


def test_the_next_batch_is_drawn_before_it_is_asked_for() -> None:
    asked = []

    def draw(step: int):
        asked.append(step)
        return draws(step)

    draws = make_draws(make_buffer(), 2)
    fetched = FetchedDraws(draws, CPU)
    fetched._draws = draw
    fetched(5)
    fetched(6)
    fetched._thread.shutdown(wait=True)
    assert asked == [5, 6, 7]


def place(monkeypatch, free: dict[str, int], *settings: str, encoded: bool = False):
    """Where data of `ROWS` go on a machine with a GPU and so much free memory."""
    dataset = SimpleNamespace(
        column=lambda name: ((2,), np.dtype("float32")),
        lengths=lambda div: np.array([ROWS]),
    )
    observation = SimpleNamespace(encoded=encoded, shape=(NUMBERS,), dtype=torch.float32)
    monkeypatch.setattr(training_data, "free_memory", lambda device: free[device.type])
    config = compose(["env_kwargs.manipobj.num_cubes=1", *settings])
    return training_data._choose_place(dataset, ["actions"], observation, config, CUDA)


def test_data_lie_on_the_gpu_where_they_fit_and_else_in_main_memory(monkeypatch, capsys) -> None:
    size = ROWS * (NUMBERS + 2) * 4
    assert place(monkeypatch, {"cpu": size, "cuda": size + RESERVED}) == CUDA
    assert capsys.readouterr().out == ""
    small = {"cpu": size, "cuda": size + RESERVED - 1}
    assert place(monkeypatch, small) == CPU
    assert "data_device=auto: main memory, since cuda has room" in capsys.readouterr().out
    assert place(monkeypatch, small, "data_device=device") == CUDA  # as long as there is room
    assert place(monkeypatch, {"cpu": size, "cuda": size + RESERVED}, "data_device=cpu") == CPU
    with pytest.raises(UserError, match=r"cuda has 0\.0 GiB free"):
        place(monkeypatch, {"cpu": size, "cuda": size - 1}, "data_device=device")
    with pytest.raises(UserError, match=r"cpu has 0\.0 GiB free"):
        place(monkeypatch, {"cpu": size - 1, "cuda": 0})


def test_mapped_data_need_no_main_memory(monkeypatch) -> None:
    actions = ROWS * 2 * 4
    assert place(monkeypatch, {"cpu": actions, "cuda": 0}, encoded=True) == CPU
