"""The losses against the paper's equations, term by term, and the order of an update."""

import math
from itertools import pairwise

import pytest
import torch
from tensordict import TensorDict

from agents.base import ROW_BLOCK
from agents.iql.awr import chamfer
from agents.iql.iql import IQL
from agents.iql.sgiql import SGIQL
from agents.learner import Learner
from agents.observations.spec import ObservationSpec
from common.data.batches import Batch
from common.runs.checkpoint import flatten
from tests.helpers.agents import (
    FLAT,
    PARTICLES,
    SETS,
    act,
    generators,
    make_hiql,
    make_iql,
    make_sgiql,
)
from tests.helpers.networks import randomise

NO_NOISE = TensorDict(batch_size=[6])


def make_awr(spec: ObservationSpec = SETS, **changes) -> SGIQL:
    return make_sgiql(spec, subgoal_policy_type="standard", **changes)


def make_batch(spec: ObservationSpec) -> Batch:
    g = torch.Generator().manual_seed(1)
    sets = [torch.randn(6, *spec.shape, generator=g) for _ in range(5)]
    done = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    action = torch.rand(6, 2, generator=g) * 2 - 1
    return Batch(sets[0], sets[1], action, done - 1, done, *sets[2:], batch_size=[6])


def update(agent: IQL, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
    return agent.update(batch, agent.draw_noise(batch, generator))


@pytest.fixture
def batch() -> Batch:
    return make_batch(SETS)


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


def test_imitation_falls_with_updates_and_goes_on_falling_after_a_restart(batch: Batch) -> None:
    agent, fixed = make_iql(alpha_decay_steps=2), make_iql()
    losses = [agent.policy_loss(batch)[0]]
    for _ in range(6):
        agent.update(batch, NO_NOISE)
    losses += [agent.policy_loss(batch)[0]]
    restarted = make_iql(alpha_decay_steps=2)
    restarted.load_state_dict(agent.state_dict())
    assert torch.equal(restarted.policy_loss(batch)[0], losses[1])
    fixed.load_state_dict(agent.state_dict())
    loss, metrics = fixed.policy_loss(batch)
    # 6 updates, K = 2: alpha / sqrt(1 + 3) is half of alpha.
    assert torch.allclose(losses[1], loss - 0.15 * metrics["policy/imitation"], rtol=1e-5)
    assert torch.equal(losses[0], make_iql().policy_loss(batch)[0])


def test_policy_loss_moves_the_policy_alone(batch: Batch) -> None:
    agent = make_iql()
    loss, _ = agent.policy_loss(batch)
    agent.learners["critic"].flat.grad.zero_()
    loss.backward()
    assert agent.learners["policy"].flat.grad.abs().sum() > 0
    assert agent.learners["critic"].flat.grad.abs().sum() == 0


def test_the_frozen_first_critic_follows_the_trained_one(batch: Batch) -> None:
    agent = make_iql()
    agent.update(batch, NO_NOISE)
    trained = agent.critic(batch.obs, batch.action, batch.value_goal)[0]
    frozen = agent.first_critic(batch.obs, batch.action, batch.value_goal)[0]
    assert torch.allclose(trained, frozen, atol=1e-6)
    agent.load_state_dict(make_iql().state_dict())
    loaded = agent.first_critic(batch.obs, batch.action, batch.value_goal)[0]
    assert not torch.allclose(frozen, loaded)


def test_an_update_is_v_then_q_then_policy_then_target(batch: Batch) -> None:
    check_update(make_iql(), make_iql(), batch)


@pytest.mark.parametrize("make", [make_hiql, make_awr])
def test_with_awr_the_subgoal_policy_comes_after_the_policy(make) -> None:
    check_update(make(), make(), make_batch(make().context.spec))


def check_update(agent: IQL, twin: IQL, batch: Batch) -> None:
    """The same steps by hand with plain Adam per parameter; the flat optimiser must agree."""
    agent.update(batch, NO_NOISE)
    steps = [
        (twin.value, twin.value_loss),
        (twin.critic, twin.critic_loss),
        (twin.policy, twin.policy_loss),
    ]
    if "subgoal" in twin.learners:
        steps.append((twin.subgoal_policy, lambda b: twin.subgoal_loss(b, NO_NOISE)))
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
    for name, learner in agent.learners.items():
        for a, b in zip(
            learner.module.parameters(), twin.learners[name].module.parameters(), strict=True
        ):
            assert torch.allclose(a, b, atol=2e-5), name
    for a, b in zip(agent.target_critic.parameters(), target, strict=True):
        assert torch.allclose(a, b, atol=2e-5)


# --- subgoals by advantage-weighted regression ----------------------------------------------------


def awr_by_hand(agent, batch: Batch, errors: list[float], divisor: float = 1.0) -> float:
    """E[ min(exp(beta A), 100) e ] / divisor, sample by sample."""
    near = agent.value(batch.policy_subgoal, batch.policy_goal)
    far = agent.value(batch.obs, batch.policy_goal)
    weights = [
        min(math.exp(3.0 * (a - b)), 100.0)
        for a, b in zip(near.tolist(), far.tolist(), strict=True)
    ]
    assert len(set(weights)) == len(weights)
    return sum(w * e for w, e in zip(weights, errors, strict=True)) / len(errors) / divisor


def spread_values(agent) -> None:
    """Give states values that differ enough for their weights to differ."""
    for p in agent.value.parameters():
        torch.nn.init.normal_(p, std=0.5)


@pytest.mark.parametrize(("make", "spec"), [(make_hiql, FLAT), (make_hiql, SETS), (make_awr, SETS)])
def test_awr_weighs_each_samples_squared_error_by_its_own_advantage(make, spec) -> None:
    agent, batch = make(spec), make_batch(spec)
    spread_values(agent)
    loss, metrics = agent.subgoal_loss(batch, NO_NOISE)
    predicted = agent.subgoal_policy(batch.obs, batch.policy_goal)
    errors = [
        ((p - t) ** 2).mean().item() for p, t in zip(predicted, batch.policy_subgoal, strict=True)
    ]
    assert math.isclose(loss.item(), awr_by_hand(agent, batch, errors), rel_tol=1e-4)
    assert math.isclose(metrics["subgoal/error"].item(), sum(errors) / 6, rel_tol=1e-4)


def test_awr_weights_end_at_a_hundred() -> None:
    agent, batch = make_hiql(beta=1e4), make_batch(FLAT)
    spread_values(agent)
    _, metrics = agent.subgoal_loss(batch, NO_NOISE)
    rising = (agent.advantage(batch) > 0).sum().item()
    assert 0 < rising < 6
    assert math.isclose(metrics["subgoal/weight"].item(), 100 * rising / 6, rel_tol=1e-4)


def test_the_references_fault_gives_every_error_every_weight() -> None:
    """(B, 1) times (B,) is (B, B), whose mean is the product of the two means."""
    right, wrong = make_hiql(), make_hiql(awr_broadcast_weights=True)
    batch = make_batch(FLAT)
    for agent in (right, wrong):
        torch.manual_seed(3)
        spread_values(agent)
    weight = torch.exp(3.0 * right.advantage(batch)).clamp(max=100)
    predicted = right.subgoal_policy(batch.obs, batch.policy_goal)
    error = (predicted - batch.policy_subgoal).square().mean(dim=-1)
    faulty = wrong.subgoal_loss(batch, NO_NOISE)[0]
    assert torch.allclose(faulty, (weight[:, None] * error).mean(), rtol=1e-4)
    assert not torch.allclose(right.subgoal_loss(batch, NO_NOISE)[0], faulty, rtol=1e-2)


def test_awr_on_particles_takes_the_chamfer_distance_and_a_hundredth_of_the_weight() -> None:
    agent, batch = make_awr(PARTICLES), make_batch(PARTICLES)
    spread_values(agent)
    predicted = agent.subgoal_policy(batch.obs, batch.policy_goal)
    options = {"metric": "l1", "target_weight": 1.0, "views": 2}
    errors = chamfer(predicted, batch.policy_subgoal, **options).tolist()
    loss = agent.subgoal_loss(batch, NO_NOISE)[0].item()
    assert math.isclose(loss, awr_by_hand(agent, batch, errors, divisor=100), rel_tol=1e-4)


def test_awr_moves_the_subgoal_policy_alone() -> None:
    agent, batch = make_hiql(), make_batch(FLAT)
    agent.subgoal_loss(batch, NO_NOISE)[0].backward()
    moved = {name for name, learner in agent.learners.items() if learner.flat.grad.abs().sum() > 0}
    assert moved == {"subgoal"}


def test_hiql_trains_its_policy_on_subgoals_and_sgiql_on_goals() -> None:
    batch = make_batch(FLAT)
    other_goal, other_subgoal = batch.clone(), batch.clone()
    other_goal.policy_goal += 1
    other_subgoal.policy_subgoal += 1
    for agent, asked, ignored in (
        (make_hiql(), other_subgoal, other_goal),
        (make_awr(FLAT), other_goal, other_subgoal),
    ):
        loss = agent.policy_loss(batch)[0]
        assert torch.equal(agent.policy_loss(ignored)[0], loss)
        assert not torch.equal(agent.policy_loss(asked)[0], loss)


def test_gradients_are_clipped_per_network() -> None:
    layer = torch.nn.Linear(3, 1, bias=False)
    learner = Learner(layer, lr=0.1, max_norm=2.0)
    norm = learner.step((layer.weight * torch.tensor([[3.0, 0.0, 4.0]])).sum())
    assert math.isclose(norm.item(), 5.0, rel_tol=1e-6)
    assert torch.allclose(layer.weight.grad, torch.tensor([[1.2, 0.0, 1.6]]), atol=1e-5)


def test_learning_rate_falls_and_goes_on_falling_after_a_restart() -> None:
    def make() -> Learner:
        return Learner(torch.nn.Linear(1, 1, bias=False), lr=0.1, max_norm=9.0, decay_steps=2)

    def moves(learner: Learner, count: int) -> list[float]:
        """Under a constant gradient, Adam moves by its learning rate."""
        weights = [learner.flat.item()]
        for _ in range(count):
            learner.step(learner.module.weight.sum())
            weights.append(learner.flat.item())
        return [before - after for before, after in pairwise(weights)]

    first, second = make(), make()
    expected = [0.1 / math.sqrt(1 + k / 2) for k in range(6)]
    assert moves(first, 4) == pytest.approx(expected[:4], rel=1e-4)
    second.load_state_dict(first.state_dict())
    assert moves(second, 2) == pytest.approx(expected[4:], rel=1e-4)


def test_parameters_are_averaged_over_a_ninth_of_the_updates_and_no_more_than_asked() -> None:
    learner = Learner(torch.nn.Linear(1, 1, bias=False), lr=0.1, max_norm=9.0, ema_decay=0.8)
    expected = learner.flat.item()
    for done in range(1, 60):
        learner.step(learner.module.weight.square().sum())
        share = max(9 / (9 + done), 0.2)
        expected += share * (learner.flat.item() - expected)
    assert learner.averaged.weight.item() == pytest.approx(expected, rel=1e-4)
    assert learner.averaged.weight.item() != pytest.approx(learner.flat.item(), rel=1e-2)


def test_a_checkpoint_without_averages_gives_its_parameters_for_them(batch: Batch) -> None:
    plain, averaged = make_sgiql(), make_sgiql(ema_decay=0.9)
    update(plain, batch, torch.Generator())
    update(averaged, batch, torch.Generator())
    averaged.load_state_dict(plain.state_dict())
    for name in ("value", "policy", "subgoal"):
        learner = averaged.learners[name]
        assert torch.equal(learner.averaged_flat, plain.learners[name].flat)
        assert learner.averaged_flat.data_ptr() != learner.flat.data_ptr()


def test_averages_act_and_the_parameters_themselves_learn(batch: Batch) -> None:
    agent, other = make_sgiql(ema_decay=0.9), make_sgiql(ema_decay=0.9)
    for name in ("value", "policy", "subgoal"):
        randomise(agent.learners[name].averaged)
    parts = batch.obs, batch.value_goal, torch.zeros(6, dtype=torch.long), None, list(range(6))
    (actions, memory), (plain, plain_memory) = act(agent, *parts), act(other, *parts)
    assert not torch.equal(memory["subgoal"], plain_memory["subgoal"])
    asked = agent.learners["policy"].averaged(batch.obs, memory["subgoal"])
    assert torch.allclose(actions, asked, atol=1e-6)
    assert torch.equal(agent.policy_loss(batch)[0], other.policy_loss(batch)[0])
    assert not torch.equal(actions, plain)


def test_noise_on_actions_is_an_episodes_own(batch: Batch) -> None:
    quiet, noisy = make_iql(), make_iql(action_noise=0.3)
    step = torch.zeros(6, dtype=torch.long)

    def acts(agent: IQL, seeds: list[int]) -> torch.Tensor:
        return act(agent, batch.obs, batch.value_goal, step, None, seeds)[0]

    one, two = acts(noisy, [0, 1, 2, 3, 4, 5]), acts(noisy, [0, 1, 2, 9, 9, 9])
    assert torch.equal(one[:3], two[:3])
    assert not torch.isclose(one[3:], two[3:]).any(dim=1).all()
    difference = (one - acts(quiet, [0] * 6)).abs()
    assert 0 < difference.mean() < 0.6 and one.abs().max() <= 1


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_state_dict_round_trip_continues_identically(batch: Batch, ema_decay: float) -> None:
    one = make_sgiql(ema_decay=ema_decay)
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        update(one, batch, generator)
    torch.manual_seed(9)
    two = make_sgiql(ema_decay=ema_decay)
    two.load_state_dict(one.state_dict())
    state = generator.get_state()
    first = update(one, batch, generator)
    second = update(two, batch, torch.Generator().set_state(state))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)
    ours, theirs = (flatten(agent.state_dict())[0] for agent in (one, two))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_acting_renews_subgoals_on_schedule_and_ends_with_the_goal() -> None:
    agent = make_sgiql(filter_subgoals=False)
    g = torch.Generator().manual_seed(0)
    obs, goal = torch.randn(1, 3, 7, generator=g), torch.randn(1, 3, 7, generator=g)
    memory, own = None, generators([3])
    pursued = []
    for step in range(10):
        action, memory = act(agent, obs, goal, [step], memory, own)
        assert action.shape == (1, 2) and action.abs().max() <= 1
        pursued.append(memory["subgoal"])
    assert all(torch.equal(pursued[i], pursued[0]) for i in range(4))
    assert all(torch.equal(pursued[i], pursued[4]) for i in range(4, 8))
    assert not torch.equal(pursued[0], pursued[4]) and not torch.equal(pursued[0], goal)
    assert torch.equal(pursued[8], goal) and torch.equal(pursued[9], goal)


def test_without_subgoals_it_acts_as_iql() -> None:
    agent = make_sgiql(disable_subgoal=True)
    obs, goal = torch.randn(2, 3, 7), torch.randn(2, 3, 7)
    action, memory = act(agent, obs, goal, [0, 0], None, [0, 1])
    assert torch.equal(memory["subgoal"], goal)
    assert torch.allclose(action, agent.policy(obs, goal), atol=1e-6)


@pytest.mark.parametrize("size", [1, 5, ROW_BLOCK + 9])
@pytest.mark.parametrize("make", [make_sgiql, make_awr])
def test_an_environment_acts_alike_alone_and_among_others(make, size: int) -> None:
    agent = make()
    for learner in agent.learners.values():
        randomise(learner.module)
    g = torch.Generator().manual_seed(0)
    obs, goal = torch.randn(size, 3, 7, generator=g), torch.randn(size, 3, 7, generator=g)
    step = torch.zeros(size).long()
    action, memory = act(agent, obs, goal, step, None, list(range(size)))
    for i in {0, size // 2, size - 1}:
        rows = slice(i, i + 1)
        alone, own = act(agent, obs[rows], goal[rows], step[rows], None, [i])
        assert torch.equal(action[rows], alone) and (memory[rows] == own).all()


@pytest.mark.parametrize("spec", [FLAT, SETS, PARTICLES])
def test_predicted_subgoals_are_pursued_as_they_are(spec: ObservationSpec) -> None:
    agent = make_hiql(spec)
    obs, goal = torch.randn(3, *spec.shape), torch.randn(3, *spec.shape)
    step = torch.tensor([0, 1, 8])  # due, not due, all used
    memory = torch.stack([agent.begin(g) for g in torch.randn(3, *spec.shape)])
    action, kept = act(agent, obs, goal, step, memory, [0, 1, 2])
    pursued = kept["subgoal"]
    predicted = agent.subgoal_policy(obs, goal)
    assert torch.allclose(pursued[0], predicted[0], atol=1e-6)
    assert torch.equal(pursued[1], memory["subgoal"][1]) and torch.equal(pursued[2], goal[2])
    assert torch.allclose(action, agent.policy(obs, pursued), atol=1e-6)


def test_diffusion_of_flat_observations_has_a_token_per_view() -> None:
    two_views = ObservationSpec("flat", (6,), views=2)
    agent, batch = make_sgiql(two_views), make_batch(two_views)
    metrics = update(agent, batch, torch.Generator().manual_seed(0))
    assert metrics["subgoal/grad_norm"] > 0
    assert agent.subgoal_policy.denoiser.encode[0].weight.shape == (1, 3, 24)
    obs, goal = torch.randn(2, 6), torch.randn(2, 6)
    step = torch.zeros(2).long()
    assert act(agent, obs, goal, step, None, [0, 1])[1]["subgoal"].shape == (2, 6)
