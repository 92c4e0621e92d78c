"""The interface on a small agent that shares nothing with others: trees of tensors, no goals."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from agents.base import Agent, AgentContext, Timestep
from agents.random_policy import RandomPolicy
from common.data.buffer import Buffer
from common.data.normaliser import Normaliser
from common.evaluation.environments import Reply
from common.evaluation.player import Player
from common.foundation.registry import AGENTS, lookup
from common.training.acceleration import Acceleration
from common.training.updates import SharedUpdates, Updates
from tests.helpers.agents import CPU, SETS, context, make_hiql
from tests.helpers.evaluation import SHAPE
from tests.helpers.point_world import point_world
from tests.helpers.updates import assert_same, make_buffer, make_draws, run
from tests.helpers.windows import make as make_ecdiffuser


class Starts:
    """Batches are trees: states, and what was done in them."""

    rewards = False

    def sample(self, buffer: Buffer, size: int, generator: torch.Generator) -> TensorDict:
        batch = buffer.sample(size, generator)
        done = TensorDict({"action": batch.action}, batch_size=[size])
        return TensorDict({"obs": batch.obs, "done": done}, batch_size=[size])


class Wanderer(Agent):
    """Walks on by habit; it counts its steps, and remembers them and its last action in a tree."""

    name = "wanderer"
    losses = ("walk_loss",)
    wants = Starts()

    def __init__(self, agent_context: AgentContext) -> None:
        super().__init__(None, agent_context)
        torch.manual_seed(0)
        self.walk = nn.Linear(int(np.prod(agent_context.spec.shape)), 2)
        self.learners["walk"] = agent_context.learner(self.walk)

    def draw_noise(self, batch: TensorDict, generator: torch.Generator) -> TensorDict:
        size = batch.batch_size
        inner = TensorDict({"eps": torch.randn(*size, 2, generator=generator)}, batch_size=size)
        return TensorDict({"inner": inner}, batch_size=size)

    def walk_loss(self, batch: TensorDict, noise: TensorDict) -> tuple[Tensor, dict]:
        target = batch["done", "action"] + 0.1 * noise["inner", "eps"]
        loss = (self.walk(batch["obs"].flatten(1)) - target).square().mean()
        return loss, {"walk/loss": loss}

    def update(self, batch: TensorDict, noise: TensorDict) -> dict[str, Tensor]:
        return self._minimise("walk", *self.walk_loss(batch, noise))

    def begin(self, goal: Tensor | None) -> TensorDict:
        assert goal is None
        body = TensorDict({"last": torch.zeros(2)})
        return TensorDict({"count": torch.zeros((), dtype=torch.long), "body": body})

    def act(self, timestep: Timestep) -> tuple[Tensor, TensorDict]:
        memory = timestep.memory.clone()
        memory["count"] += 1
        action = (self.walk(timestep.obs.flatten(1)) + memory["body", "last"]).tanh()
        if timestep.explore:
            action = torch.stack([torch.rand(2, generator=g) for g in timestep.generators])
        memory["body", "last"] = action
        return action, memory


def moment(agent: Wanderer, **changes) -> Timestep:
    memory = torch.stack([agent.begin(None)] * 3)
    own = [torch.Generator().manual_seed(i) for i in range(3)]
    return replace(Timestep(torch.ones(3, 3, 7), None, torch.zeros(3), memory, own), **changes)


def test_it_plays_with_its_memory_carried_from_step_to_step() -> None:
    agent = Wanderer(context(replace(SETS, shape=SHAPE)))
    world, scale = point_world(12), torch.ones(SHAPE[-1:])
    observation = SimpleNamespace(
        identities=lambda episodes, generator: torch.zeros(episodes, 0),
        encode=lambda raw, identities: raw.view(-1, 2, 1).expand(-1, *SHAPE),
        pixels=False,
    )
    player = Player(
        agent, observation, Normaliser(scale * 0, scale), world, 1, (), 1, 1, None, None
    )
    for slot in (0, 1):
        assert player.start(slot, slot).film == (slot == 0)
        assert not player.take(slot, Reply(np.full(2, slot, np.float32)))
    for steps in (1, 2, 3):
        orders = player.decide()
        for slot, order in orders.items():
            memory = player.live[slot].memory
            assert memory["count"] == steps and order.subgoal is None
            np.testing.assert_array_equal(order.action, memory["body", "last"].numpy())
            assert not player.take(slot, Reply(np.full(2, slot, np.float32)))
    assert not np.array_equal(orders[0].action, orders[1].action)


def test_it_learns_alone_accelerated_and_in_a_team_of_one() -> None:
    agents = [Wanderer(context(SETS)) for _ in range(3)]
    draws = make_draws(make_buffer(), wants=agents[0].wants)
    team = SimpleNamespace(
        share=slice(0, None, 1), rank=0, copy_from_main=lambda x: None, average=lambda x: x
    )
    sums = run(Updates(agents[0], draws, {}), range(1, 6))
    assert sums.keys() == {"walk/loss", "walk/grad_norm"}
    assert_same(run(SharedUpdates(agents[1], draws, {}, Acceleration(), team), range(1, 6)), sums)
    rounded = run(Updates(agents[2], draws, {}, Acceleration(autocast=True)), range(1, 6))
    torch.testing.assert_close(rounded["walk/loss"], sums["walk/loss"], rtol=0.05, atol=0)
    assert rounded["walk/loss"] != sums["walk/loss"]


def test_exploring_is_a_flag_of_acting_that_a_random_policy_need_not_read() -> None:
    agent = Wanderer(context(SETS))
    plain, exploring = (agent.act(moment(agent, explore=e))[0] for e in (False, True))
    assert not torch.equal(plain, exploring)
    assert torch.equal(agent.act(moment(agent))[0], plain)  # evaluations do not explore
    random = RandomPolicy(2)
    one, two = (random.act(moment(agent, explore=e))[0] for e in (False, True))
    assert torch.equal(one, two) and agent.context.device == CPU


@pytest.mark.parametrize("name", AGENTS)
def test_agents_name_all_their_losses(name: str) -> None:
    """Else one would be computed eagerly, in full precision, without a word."""
    kind = lookup(AGENTS, name, "agent")
    assert {method for method in dir(kind) if method.endswith("_loss")} == set(kind.losses)


def test_values_have_a_range_where_there_are_some() -> None:
    assert make_hiql().value_range == pytest.approx((-10, 0))  # gamma is 0.9
    assert make_ecdiffuser().value_range is None
