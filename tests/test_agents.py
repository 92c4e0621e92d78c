"""The losses against the paper's equations, term by term, and the order of an update."""

import math

import pytest
import torch

from agents.base import ROW_BLOCK, AgentContext
from agents.iql import IQL, IQLSettings
from agents.learner import Learner
from agents.networks import EITSettings
from agents.sgiql import SGIQL, SGIQLSettings
from common.buffer import Batch
from tests.test_networks import randomise

SIZE = EITSettings(embed_dim=16, h_dim=24, n_head=4, dropout=0.0, n_diffuser_layers=2)
CONTEXT = AgentContext((3, 7), 2, SIZE, 0.9, 1e-3, 20.0, torch.device("cpu"))
SUBGOALS = {
    "subgoal_policy_type": "diffusion",
    "subgoal_k": 5,
    "subgoal_steps": 4,
    "num_subgoals": 2,
    "disable_subgoal": False,
    "n_diffusion_steps": 5,
    "n_diffusion_samples": 8,
    "value_competence_radius": -30.0,
    "filter_subgoals": True,
}


def make_iql() -> IQL:
    torch.manual_seed(0)
    agent = IQL(IQLSettings(tau=0.1, alpha=0.3, expectile=0.9), CONTEXT)
    for learner in agent.learners.values():
        randomise(learner.module)
    randomise(agent.target_critic)
    return agent


def make_sgiql(**changes) -> SGIQL:
    torch.manual_seed(0)
    return SGIQL(SGIQLSettings(tau=0.1, alpha=0.3, expectile=0.9, **(SUBGOALS | changes)), CONTEXT)


@pytest.fixture
def batch() -> Batch:
    g = torch.Generator().manual_seed(1)
    sets = [torch.randn(6, 3, 7, generator=g) for _ in range(5)]
    done = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    action = torch.rand(6, 2, generator=g) * 2 - 1
    return Batch(sets[0], sets[1], action, done - 1, done, *sets[2:])


def test_value_loss_is_expectile_regression_on_the_smaller_target(batch: Batch) -> None:
    agent = make_iql()
    loss, _ = agent.value_loss(batch)
    q = agent.target_critic(batch.obs, batch.action, batch.value_goal)
    v = agent.value(batch.obs, batch.value_goal)
    expected = 0.0
    for i in range(6):
        u = min(q[0, i].item(), q[1, i].item()) - v[i].item()
        expected += abs(0.9 - (u < 0)) * u * u / 6
    assert math.isclose(loss.item(), expected, rel_tol=1e-4)


def test_critic_loss_is_a_clipped_one_step_backup_with_the_online_value(batch: Batch) -> None:
    agent = make_iql()
    loss, _ = agent.critic_loss(batch)
    q = agent.critic(batch.obs, batch.action, batch.value_goal)
    v = agent.value(batch.next_obs, batch.value_goal)
    expected = 0.0
    for i in range(6):
        y = batch.reward[i].item() + (1 - batch.done[i].item()) * 0.9 * v[i].item()
        y = min(max(y, -10.0), 0.0)
        expected += sum((q[k, i].item() - y) ** 2 for k in range(2)) / 6
    assert math.isclose(loss.item(), expected, rel_tol=1e-4)


def test_policy_loss_is_ddpg_scaled_by_q_plus_imitation(batch: Batch) -> None:
    agent = make_iql()
    loss, _ = agent.policy_loss(batch)
    action = agent.policy(batch.obs, batch.policy_goal)
    q = agent.critic(batch.obs, action, batch.policy_goal)[0]
    expected = -q.mean() / (q.abs().mean() + 1e-6) + 0.3 * ((action - batch.action) ** 2).mean()
    assert torch.allclose(loss, expected, rtol=1e-4)


def test_policy_loss_moves_the_policy_alone(batch: Batch) -> None:
    agent = make_iql()
    loss, _ = agent.policy_loss(batch)
    agent.learners["critic"].flat.grad.zero_()
    loss.backward()
    assert agent.learners["policy"].flat.grad.abs().sum() > 0
    assert agent.learners["critic"].flat.grad.abs().sum() == 0


def test_the_frozen_first_critic_follows_the_trained_one(batch: Batch) -> None:
    agent = make_iql()
    generator = torch.Generator().manual_seed(0)
    agent.update(batch, generator)
    trained = agent.critic(batch.obs, batch.action, batch.value_goal)[0]
    frozen = agent.first_critic(batch.obs, batch.action, batch.value_goal)[0]
    assert torch.allclose(trained, frozen, atol=1e-6)
    agent.load_state_dict(make_iql().state_dict())
    loaded = agent.first_critic(batch.obs, batch.action, batch.value_goal)[0]
    assert not torch.allclose(frozen, loaded)


def test_an_update_is_v_then_q_then_policy_then_target(batch: Batch) -> None:
    """The same steps by hand with plain Adam per parameter; the flat optimiser must agree."""
    agent, twin = make_iql(), make_iql()
    agent.update(batch, torch.Generator())
    steps = (
        (twin.value, twin.value_loss),
        (twin.critic, twin.critic_loss),
        (twin.policy, twin.policy_loss),
    )
    for network, loss in steps:
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
        for p in network.parameters():
            p.grad = None
        loss(batch)[0].backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 20.0)
        optimiser.step()
    target = [
        0.9 * t + 0.1 * q
        for t, q in zip(twin.target_critic.parameters(), twin.critic.parameters(), strict=True)
    ]
    for name in ("value", "critic", "policy"):
        for a, b in zip(
            getattr(agent, name).parameters(), getattr(twin, name).parameters(), strict=True
        ):
            assert torch.allclose(a, b, atol=2e-5), name
    for a, b in zip(agent.target_critic.parameters(), target, strict=True):
        assert torch.allclose(a, b, atol=2e-5)


def test_gradients_are_clipped_per_network() -> None:
    layer = torch.nn.Linear(3, 1, bias=False)
    learner = Learner(layer, lr=0.1, max_norm=2.0)
    norm = learner.step((layer.weight * torch.tensor([[3.0, 0.0, 4.0]])).sum())
    assert math.isclose(norm.item(), 5.0, rel_tol=1e-6)
    assert torch.allclose(layer.weight.grad, torch.tensor([[1.2, 0.0, 1.6]]), atol=1e-5)


def test_state_dict_round_trip_continues_identically(batch: Batch) -> None:
    one = make_sgiql()
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        one.update(batch, generator)
    torch.manual_seed(9)
    two = make_sgiql()
    two.load_state_dict(one.state_dict())
    state = generator.get_state()
    first = one.update(batch, generator)
    second = two.update(batch, torch.Generator().set_state(state))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)
    for a, b in zip(one.learners.values(), two.learners.values(), strict=True):
        assert torch.equal(a.flat, b.flat)
    assert torch.equal(one.target_flat, two.target_flat)


def generators(seeds: list[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(s) for s in seeds]


def test_acting_renews_subgoals_on_schedule_and_ends_with_the_goal() -> None:
    agent = make_sgiql(filter_subgoals=False)
    g = torch.Generator().manual_seed(0)
    obs, goal = torch.randn(1, 3, 7, generator=g), torch.randn(1, 3, 7, generator=g)
    memory, own = goal, generators([3])
    pursued = []
    for step in range(10):
        action, memory = agent.act(obs, goal, torch.tensor([step]), memory, own)
        assert action.shape == (1, 2) and action.abs().max() <= 1
        pursued.append(memory)
    assert all(torch.equal(pursued[i], pursued[0]) for i in range(4))
    assert all(torch.equal(pursued[i], pursued[4]) for i in range(4, 8))
    assert not torch.equal(pursued[0], pursued[4]) and not torch.equal(pursued[0], goal)
    assert torch.equal(pursued[8], goal) and torch.equal(pursued[9], goal)


def test_without_subgoals_it_acts_as_iql() -> None:
    agent = make_sgiql(disable_subgoal=True)
    obs, goal = torch.randn(2, 3, 7), torch.randn(2, 3, 7)
    action, memory = agent.act(obs, goal, torch.zeros(2).long(), goal, generators([0, 1]))
    assert torch.equal(memory, goal)
    assert torch.allclose(action, agent.policy(obs, goal), atol=1e-6)


@pytest.mark.parametrize("size", [1, 5, ROW_BLOCK + 9])
def test_an_environment_acts_alike_alone_and_among_others(size: int) -> None:
    agent = make_sgiql()
    for learner in agent.learners.values():
        randomise(learner.module)
    g = torch.Generator().manual_seed(0)
    obs, goal = torch.randn(size, 3, 7, generator=g), torch.randn(size, 3, 7, generator=g)
    step = torch.zeros(size).long()
    action, memory = agent.act(obs, goal, step, goal, generators(list(range(size))))
    for i in {0, size // 2, size - 1}:
        rows = slice(i, i + 1)
        alone, own = agent.act(obs[rows], goal[rows], step[rows], goal[rows], generators([i]))
        assert torch.equal(action[rows], alone) and torch.equal(memory[rows], own)
