"""Updates: draws that depend on seed and number alone, and two processes that equal one."""

import pytest
import torch

from agents.iql.sgiql import SGIQL
from common.foundation.errors import UserError
from common.runs.checkpoint import flatten
from common.settings.config import compose
from common.training.engine import make_updates
from common.training.pipelined import PipelinedUpdates
from common.training.updates import Updates
from tests.helpers.agents import FLAT, make_hiql, make_iql, make_sgiql
from tests.helpers.updates import assert_same, make_buffer, make_draws, run


def test_draws_depend_on_seed_and_update_alone() -> None:
    buffer = make_buffer()
    draws, again, other = make_draws(buffer), make_draws(buffer), make_draws(buffer, seed=4)
    for step in (1, 2, 3):
        draws(step)
    batch, generator = draws(7)
    twin, twin_generator = again(7)
    assert torch.equal(batch.obs, twin.obs) and torch.equal(batch.value_goal, twin.value_goal)
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=twin_generator))
    assert not torch.equal(batch.obs, draws(8)[0].obs)
    assert not torch.equal(batch.obs, other(7)[0].obs)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_two_processes_compute_the_same_bits_as_one(one_thread: None, ema_decay: float) -> None:
    """Parameters, averages, moments and metrics; over a reset, and from a state in the middle."""
    draws = make_draws(make_buffer())
    alone, shared = make_sgiql(ema_decay=ema_decay), make_sgiql(ema_decay=ema_decay)
    plain = Updates(alone, draws, {})
    first = run(plain, range(1, 4))
    plain.reset()
    second = run(plain, range(4, 9))

    pipeline = PipelinedUpdates(shared, draws, {}, threads=1)
    assert_same(run(pipeline, range(1, 4)), first)
    pipeline.reset()
    middle = run(pipeline, range(4, 6))
    pipeline.close()
    continued = PipelinedUpdates(shared, draws, middle, threads=1)
    assert_same(run(continued, range(6, 9)), second)
    assert_same(flatten(shared.state_dict())[0], flatten(alone.state_dict())[0])
    continued.close()


def test_subgoal_policies_that_read_v_see_that_of_the_same_update(one_thread: None) -> None:
    """AWR in the second process."""
    draws = make_draws(make_buffer(FLAT))
    alone, shared = make_hiql(), make_hiql()
    sums = run(Updates(alone, draws, {}), range(1, 6))
    assert sums["subgoal/advantage"] != 0
    pipeline = PipelinedUpdates(shared, draws, {}, threads=1)
    assert_same(run(pipeline, range(1, 6)), sums)
    pipeline.close()
    assert_same(flatten(shared.state_dict())[0], flatten(alone.state_dict())[0])


class Broken(SGIQL):
    """Its policies cannot be updated."""

    def update_policies(self, batch, noise):
        raise ArithmeticError("no luck")


def test_the_end_of_the_second_process_is_reported(one_thread: None) -> None:
    plain = make_sgiql()
    agent = Broken(plain.settings, plain.context)
    updates = PipelinedUpdates(agent, make_draws(make_buffer()), {}, threads=1)
    with pytest.raises(RuntimeError, match="exit code 1"):
        run(updates, range(1, 4))


def test_auto_takes_one_process_where_two_are_not_possible() -> None:
    agent, buffer = make_sgiql(), make_buffer()
    dropout = ["env_kwargs.manipobj.num_cubes=1", "arch_eit.dropout=0.1"]
    assert type(make_updates(compose(dropout), agent, buffer, {})) is Updates
    with pytest.raises(UserError, match="dropout"):
        make_updates(compose([*dropout, "parallel_update=always"]), agent, buffer, {})
    never = compose(["env_kwargs.manipobj.num_cubes=1", "parallel_update=never"])
    assert type(make_updates(never, agent, buffer, {})) is Updates


def test_auto_takes_two_processes_for_small_entity_networks_only(monkeypatch) -> None:
    """Of an agent and its networks as they are, whatever `arch_eit` says."""
    made = []
    monkeypatch.setattr(
        "common.training.engine.PipelinedUpdates", lambda agent, *_: made.append(agent)
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    config = compose(["env_kwargs.manipobj.num_cubes=1"])
    small, flat = make_iql(), make_hiql()
    make_updates(config, small, make_buffer(), {})
    assert type(make_updates(config, flat, make_buffer(FLAT), {})) is Updates
    assert made == [small]
