"""TD3: a burst of the reference's, the losses by their equations, acting, what it wants of data."""

import dataclasses
import math

import pytest
import torch
from tensordict import TensorDict

from agents.base import AgentContext, Timestep
from agents.ecrl.exploration import Exploration
from agents.ecrl.td3 import TD3, choose_networks
from agents.networks.families import ImageNetworks, make_networks
from agents.networks.flat import MLPSettings
from agents.observations.spec import ObservationSpec
from common.data.batches import Batch
from common.data.goals import Episodes
from common.foundation.errors import UserError
from common.runs.checkpoint import flatten
from tests.helpers.agents import CPU, FLAT, PARTICLES, SETS, context, defaults, generators
from tests.helpers.ecrl import PUBLISHED, fill_tokens, golden, make_td3, td3_settings
from tests.helpers.networks import randomise
from tests.helpers.updates import make_buffer


def published(burst: int) -> TD3:
    """With the settings of `config.yaml` and the weights of the golden vectors."""
    spec = ObservationSpec("entities", (2, 4))
    networks = make_networks(spec, 3, PUBLISHED, MLPSettings(h_dim=512, conv_channels=(4,)))
    base = AgentContext(spec, 3, networks, 0.99, 3e-4, 0, 20.0, CPU)
    settings = defaults("td3")
    agent = TD3(settings, dataclasses.replace(base, reward_range=(-2.0, 0.0), burst=burst))
    fill_tokens(agent.policy, 610)
    fill_tokens(agent.target_policy, 620)
    for member in range(2):
        fill_tokens(agent.critic, 611 + member, member)
        fill_tokens(agent.target_critic, 621 + member, member)
    return agent


def golden_batch(vectors: dict[str, torch.Tensor], i: int) -> tuple[Batch, TensorDict]:
    state, following, goal, action = (
        vectors[f"{name}{i}"] for name in ("state", "next_state", "goal", "action")
    )
    reward = vectors[f"reward{i}"][:, 0]
    goals = goal, goal, goal
    batch = Batch(state, following, action, reward, reward * 0, *goals, batch_size=[8])
    return batch, TensorDict({"action": vectors[f"noise{i}"] / 0.2}, batch_size=[8])


def test_a_burst_of_updates_ends_where_the_references_does() -> None:
    vectors = golden("update")
    agent = published(burst=2)
    first, noise = golden_batch(vectors, 0)
    metrics = [agent.update(first, noise), agent.update(*golden_batch(vectors, 1))]
    assert [m["policy/loss"].item() != 0 for m in metrics] == [False, True]
    assert metrics[0].keys() == metrics[1].keys()
    seen = first.obs, first.value_goal
    for name in ("policy", "target_policy"):
        expected = vectors[name.replace("policy", "actor")]
        assert torch.allclose(getattr(agent, name)(*seen), expected, atol=2e-5), name
    for name in ("critic", "target_critic"):
        found = getattr(agent, name)(seen[0], first.action, seen[1])
        assert torch.allclose(found, vectors[name], rtol=2e-5, atol=2e-5), name


def make_batch(spec: ObservationSpec = SETS) -> Batch:
    g = torch.Generator().manual_seed(1)
    obs, following, goal = (torch.randn(6, *spec.shape, generator=g) for _ in range(3))
    done = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    action, reward = torch.rand(6, 2, generator=g) * 2 - 1, -torch.rand(6, generator=g)
    return Batch(obs, following, action, reward, done, goal, goal, goal, batch_size=[6])


def ready(spec: ObservationSpec = SETS, **changes) -> TD3:
    agent = make_td3(spec, **changes)
    for network in (agent.critic, agent.policy, *agent.targets.values()):
        randomise(network)
    return agent


@pytest.mark.parametrize("spec", [SETS, FLAT])
def test_targets_are_smoothed_and_clipped_sample_by_sample(spec: ObservationSpec) -> None:
    agent, batch = ready(spec, gamma=0.9, target_noise=0.4, target_noise_clip=0.3), make_batch(spec)
    eps = torch.randn(6, 2)
    loss, metrics = agent.critic_loss(batch, TensorDict({"action": eps}, batch_size=[6]))
    calm = agent.target_policy(batch.next_obs, batch.value_goal)
    expected, targets = 0.0, []
    noisy = [
        max(-1.0, min(1.0, a + max(-0.3, min(0.3, 0.4 * e))))
        for a, e in zip(calm.flatten().tolist(), eps.flatten().tolist(), strict=True)
    ]
    action = torch.tensor(noisy).view(6, 2)
    next_q = agent.target_critic(batch.next_obs, action, batch.value_goal)
    q = agent.critic(batch.obs, batch.action, batch.value_goal)
    for i in range(6):
        best = min(next_q[0, i].item(), next_q[1, i].item())
        y = batch.reward[i].item() + (1 - batch.done[i].item()) * 0.9 * best
        targets.append(max(-10.0, min(0.0, y)))
        expected += sum((q[k, i].item() - targets[i]) ** 2 for k in range(2)) / 6
    assert math.isclose(loss.item(), expected, rel_tol=1e-4)
    assert math.isclose(metrics["critic/target"].item(), sum(targets) / 6, rel_tol=1e-4)


def test_the_policy_climbs_the_first_critic_and_pays_for_large_actions() -> None:
    agent, batch = ready(action_penalty=0.7), make_batch()
    loss, _ = agent.policy_loss(batch)
    action = agent.policy(batch.obs, batch.policy_goal)
    q = agent.critic(batch.obs, action, batch.policy_goal)[0]
    assert torch.allclose(loss, -q.mean() + 0.7 * (action**2).mean(), rtol=1e-4)
    agent.learners["critic"].flat.grad.zero_()
    loss.backward()
    assert agent.learners["policy"].flat.grad.abs().sum() > 0
    assert agent.learners["critic"].flat.grad.abs().sum() == 0


def test_policy_and_targets_move_in_their_own_rhythm_also_after_a_restart() -> None:
    def moves(agent: TD3, updates: int) -> list[tuple[bool, bool]]:
        batch, moved = make_batch(), []
        for _ in range(updates):
            before = agent.learners["policy"].flat.clone(), agent.target_flats["critic"].clone()
            noise = agent.draw_noise(batch, torch.Generator().manual_seed(0))
            metrics = agent.update(batch, noise)
            now = agent.learners["policy"].flat, agent.target_flats["critic"]
            moved += [tuple(not torch.equal(a, b) for a, b in zip(before, now, strict=True))]
            assert (metrics["policy/loss"] != 0) == moved[-1][0]
        return moved

    agent = ready(policy_delay=2, target_period=3)
    assert moves(agent, 3) == [(False, False), (True, False), (False, True)]
    restarted = ready(policy_delay=2, target_period=3)
    restarted.load_state_dict(agent.state_dict())
    assert moves(restarted, 3) == [(True, False), (False, False), (True, True)]
    assert moves(agent, 3) == [(True, False), (False, False), (True, True)]
    for name in ("critic", "policy"):
        assert torch.equal(agent.learners[name].flat, restarted.learners[name].flat)
        assert torch.equal(agent.target_flats[name], restarted.target_flats[name])


def test_means_of_the_policys_metrics_are_those_over_its_own_updates() -> None:
    agent, batch = ready(policy_delay=3), make_batch()
    noise = agent.draw_noise(batch, torch.Generator().manual_seed(0))
    for _ in range(2):
        agent.update(batch, noise)
    twin = ready(policy_delay=3)
    twin.load_state_dict(agent.state_dict())
    twin._minimise("critic", *twin.critic_loss(batch, noise))
    own = twin.policy_loss(batch)[0].item()
    assert math.isclose(agent.update(batch, noise)["policy/loss"].item() / 3, own, rel_tol=1e-5)


def test_updates_without_a_branch_learn_the_same() -> None:
    """As a captured update does, which cannot ask whether the policy is due."""
    branching, captured, batch = ready(policy_delay=3), ready(policy_delay=3), make_batch()
    captured.branches = False
    sums = [0.0, 0.0]
    for seed in range(7):
        noise = branching.draw_noise(batch, torch.Generator().manual_seed(seed))
        for i, agent in enumerate((branching, captured)):
            sums[i] += agent.update(batch, noise)["policy/loss"].item()
    one, two = (flatten(agent.state_dict())[0] for agent in (branching, captured))
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert sums[0] == pytest.approx(sums[1]) and sums[0] != 0


def test_targets_start_as_copies_and_move_once_per_burst_unless_told() -> None:
    agent = make_td3()
    for name, target in agent.target_flats.items():
        assert torch.equal(target, agent.learners[name].flat)
    bursts = dataclasses.replace(context(SETS), burst=7)
    assert TD3(td3_settings(target_period=None), bursts).target_period == 7
    assert TD3(td3_settings(target_period=4), bursts).target_period == 4


def test_values_lie_between_what_the_worst_rewards_sum_to_and_nothing() -> None:
    worse = dataclasses.replace(context(SETS), reward_range=(-2.0, 0.0))
    low, high = TD3(td3_settings(gamma=0.98), worse).value_range
    assert low == pytest.approx(-100) and high == 0
    assert TD3(td3_settings(gamma=None), worse).value_range[0] == pytest.approx(-20)


def test_rewards_of_particles_take_the_place_of_the_worlds() -> None:
    agent = make_td3(PARTICLES, reward="chamfer", p_hindsight=1.0, gamma=0.9)
    assert agent.value_range == pytest.approx((-80, 0))
    assert not agent.wants.rewards and make_td3().wants.rewards
    buffer = make_buffer(PARTICLES)
    batch = agent.wants.sample(buffer, 32, torch.Generator().manual_seed(0))
    assert torch.equal(batch.reward, agent.reward(batch.next_obs, batch.value_goal))
    assert batch.reward.min() < -1  # the data's are 0 and -1
    buffer.normalise = lambda obs: obs * 0
    again = agent.wants.sample(buffer, 32, torch.Generator().manual_seed(0))
    assert torch.equal(again.reward, batch.reward) and not again.next_obs.any()


# --- acting ---------------------------------------------------------------------------------------


def timestep(rows: int, seeds: list[int], **changes) -> Timestep:
    g = torch.Generator().manual_seed(2)
    obs, goal = torch.randn(rows, *SETS.shape, generator=g), torch.randn(rows, *SETS.shape)
    memory = TensorDict(batch_size=[rows])
    return Timestep(obs, goal, torch.zeros(rows), memory, generators(seeds), **changes)


def test_evaluations_see_the_policy_itself() -> None:
    agent, moment = ready(), timestep(3, [0, 1, 2])
    action, _ = agent.act(moment)
    assert torch.allclose(action, agent.policy(moment.obs, moment.goal), atol=1e-6)
    drawn = [torch.rand((), generator=g) for g in moment.generators]
    assert drawn == [torch.rand((), generator=g) for g in generators([0, 1, 2])]


def test_an_explorer_acts_alike_alone_and_among_others() -> None:
    agent = ready(explore_eps=0.5)
    numbers = torch.tensor([0, 1, 900, 20_000, 7])
    moment = timestep(5, [5, 6, 7, 8, 9], explore=True, episode=numbers)
    action, _ = agent.act(moment)
    for i in range(5):
        alone = Timestep(
            moment.obs[i : i + 1],
            moment.goal[i : i + 1],
            torch.zeros(1),
            TensorDict(batch_size=[1]),
            generators([5 + i]),
            explore=True,
            episode=numbers[i : i + 1],
        )
        assert torch.equal(agent.act(alone)[0][0], action[i])


def test_exploration_falls_linearly_and_the_first_episodes_are_uniform() -> None:
    law = Exploration(64, 0.3, 0.2, (8000, 16000), 0.5)
    numbers = torch.tensor([0, 63, 64, 8000, 12000, 16000, 99999])
    eps, sigma = law.rates(numbers)
    assert eps.tolist() == pytest.approx([1, 1, 0.3, 0.3, 0.225, 0.15, 0.15])
    assert sigma.tolist() == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.15, 0.1, 0.1])


def test_coins_and_noise_have_the_wanted_laws() -> None:
    law, rows = Exploration(0, 0.25, 0.2, (1, 2), 0.5), 4000
    coin, uniform, noise = law.draw(torch.zeros(rows), 2, generators(list(range(rows))))
    assert coin.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert noise.std().item() == pytest.approx(0.2, rel=0.05)
    assert uniform.abs().max() <= 1 and uniform.std().item() == pytest.approx(3**-0.5, rel=0.05)


def test_explorers_add_noise_to_uniform_actions_and_to_the_policys() -> None:
    agent, numbers = ready(explore_eps=0.5), torch.full((40,), 9)
    moment = timestep(40, list(range(40)), explore=True, episode=numbers)
    action, _ = agent.act(moment)
    coin, uniform, noise = agent.exploration.draw(numbers, 2, generators(list(range(40))))
    base = torch.where(coin[:, None], uniform, agent.policy(moment.obs, moment.goal))
    assert 0 < coin.sum() < 40
    assert torch.allclose(action, (base + noise).clamp(-1, 1), atol=1e-6)


def test_the_first_episodes_do_not_ask_the_policy(monkeypatch) -> None:
    agent = ready(random_episodes=10)
    monkeypatch.setattr(agent, "_follow", None)
    moment = timestep(4, [0, 1, 2, 3], explore=True, episode=torch.tensor([0, 3, 9, 5]))
    assert agent.act(moment)[0].shape == (4, 2)


# --- refusals -------------------------------------------------------------------------------------


def test_data_must_have_what_batches_are_drawn_from() -> None:
    buffer = make_buffer()
    with pytest.raises(UserError, match=r"no goals of their own; set td3\.p_hindsight=1"):
        make_td3().prepare(buffer)
    make_td3(p_hindsight=1.0).prepare(buffer)
    with pytest.raises(UserError, match=r"nobody knows what moved; set td3\.moved_share=0"):
        make_td3(p_hindsight=1.0, moved_share=0.5).prepare(buffer)
    first, length = buffer.episodes[:2]
    buffer.episodes = Episodes(first, length, first + length, torch.tensor([1]))
    make_td3(moved_share=0.5).prepare(buffer)


def test_images_have_no_networks_of_ecrls() -> None:
    spec = ObservationSpec("image", (3, 32, 32))
    with pytest.raises(UserError, match=r"td3\.networks=ecrl has none .* kind image; use"):
        make_td3(spec)
    assert isinstance(choose_networks(td3_settings(networks="hecrl"), context(spec)), ImageNetworks)


def test_smorls_attention_is_for_one_object() -> None:
    one = ObservationSpec("entities", (2, 4))
    batch = make_batch(one)
    agent = make_td3(one, networks="smorl")
    other = batch.clone()
    other.value_goal[:, 0] += 1  # the pusher's, which nobody asks for
    noise = agent.draw_noise(batch, torch.Generator().manual_seed(0))
    losses = [agent.critic_loss(b, noise)[0] for b in (batch, other)]
    assert torch.equal(*losses)
    for spec in (SETS, PARTICLES, FLAT):
        with pytest.raises(UserError, match=r"td3\.networks=smorl pursues one object; use a world"):
            make_td3(spec, networks="smorl")


def test_rewards_of_particles_need_particles() -> None:
    with pytest.raises(UserError, match=r"td3\.reward=chamfer is of particles; use obs=dlp or"):
        make_td3(reward="chamfer")


def test_a_schedule_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(UserError, match=r"td3\.explore_decay_to=5 .* at least .*=9"):
        make_td3(explore_decay_from=9, explore_decay_to=5)
