"""ECRL's networks: golden vectors, parameter counts, what is hidden, what order does not matter."""

import dataclasses

import pytest
import torch

from agents.networks.families import PlainNetworks, SmorlNetworks, TokenNetworks
from agents.networks.flat import MLPSettings
from agents.networks.layers import PAIRWISE_LIMIT, Attention
from agents.networks.tokens import SetCritic, SetPolicy, split_hidden
from agents.observations.spec import ObservationSpec
from tests.helpers.ecrl import PUBLISHED, fill_plain, fill_smorl, fill_tokens, golden
from tests.helpers.networks import SMALL, count, randomise

MLP = MLPSettings(h_dim=256, conv_channels=(16,))
SMALLER = dataclasses.replace(PUBLISHED, embed_dim=32, n_head=4)
SET = ObservationSpec("entities", (4, 7))
PARTICLES = ObservationSpec("entities", (6, 9), views=2, explicit=4)


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


def sets(features: int, views: int = 1, masked: bool = False) -> ObservationSpec:
    """Of golden vectors, whose last feature is the transparency."""
    return ObservationSpec("entities", (2, features), views, features if masked else 0)


@pytest.mark.parametrize(
    ("name", "spec", "actor", "critics"),
    [
        ("state1", sets(4), 400, (401, 402)),
        ("state3", sets(6), 410, (411, 412)),
        ("push_t2", sets(6), 420, (421, 422)),
        ("dlp2", sets(10, 2, True), 430, (431, 432)),
        ("dlp1", sets(10, 1, True), 440, (441, 442)),
        ("slots2", sets(64, 2), 450, (451, 452)),
    ],
)
@torch.no_grad()
def test_transformers_say_what_the_reference_says(name, spec, actor, critics) -> None:
    vectors = golden(f"eit/{name}")
    networks = TokenNetworks(spec, 3, PUBLISHED, MLP)
    state, goal = (x.flatten(1, -2) for x in (vectors["state"], vectors["goal"]))
    policy, critic = networks.policy(), networks.critic(2)
    fill_tokens(policy, actor)
    for member, seed in enumerate(critics):
        fill_tokens(critic, seed, member)
    assert close(policy(state, goal), vectors["actor"])
    assert close(critic(state, vectors["action"], goal), vectors["critic"])


@torch.no_grad()
def test_a_critic_without_action_token_says_what_the_reference_says() -> None:
    vectors = golden("eit/no_action_token")
    critic = TokenNetworks(sets(4), 3, PUBLISHED, MLP, action_token=False).critic(1)
    fill_tokens(critic, 460)
    found = critic(vectors["state"], vectors["action"], vectors["goal"])
    assert close(found[0], vectors["critic"])


@pytest.mark.parametrize(
    ("name", "spec", "size", "seeds"),
    [
        ("state3", sets(6), SMALLER, (500, 501)),
        ("dlp2", sets(10, 2, True), PUBLISHED, (510, 511)),
    ],
)
@torch.no_grad()
def test_smorls_attention_says_what_the_reference_says(name, spec, size, seeds) -> None:
    vectors = golden(f"smorl/{name}")
    networks = SmorlNetworks(spec, 3, size, MLP)
    state, goal = (x.flatten(1, -2) for x in (vectors["state"], vectors["goal"]))
    policy, critic = networks.policy(), networks.critic(1)
    fill_smorl(policy, seeds[0])
    fill_smorl(critic, seeds[1])
    assert close(policy(state, goal), vectors["actor"])
    assert close(critic(state, vectors["action"], goal)[0], vectors["critic"])


@pytest.mark.parametrize(
    ("name", "features", "views", "seeds"),
    [("state1", 4, 1, (520, 521)), ("vae2", 512, 2, (530, 531))],
)
@torch.no_grad()
def test_networks_without_structure_say_what_the_reference_says(
    name, features, views, seeds
) -> None:
    vectors = golden(f"mlp/{name}")
    networks = PlainNetworks(ObservationSpec("flat", (features,), views), 3, PUBLISHED, MLP)
    state, goal = vectors["state"].flatten(1), vectors["goal"].flatten(1)
    policy, critic = networks.policy(), networks.critic(1)
    fill_plain(policy, seeds[0])
    fill_plain(critic, seeds[1])
    assert close(policy(state, goal), vectors["actor"])
    assert close(critic(state, vectors["action"], goal)[0], vectors["critic"])


TINY = dataclasses.replace(PUBLISHED, embed_dim=32, h_dim=64, n_head=4)


@pytest.mark.parametrize(
    ("networks", "actor", "critic"),
    [
        (TokenNetworks(sets(4), 3, PUBLISHED, MLP), 616_323, 649_665),
        (TokenNetworks(sets(5), 3, PUBLISHED, MLP), 616_451, 649_793),
        (TokenNetworks(sets(6), 3, PUBLISHED, MLP), 616_579, 649_921),
        (TokenNetworks(sets(10, 2, True), 3, PUBLISHED, MLP), 617_091, 650_433),
        (TokenNetworks(sets(10, 1, True), 3, PUBLISHED, MLP), 616_963, 650_305),
        (TokenNetworks(sets(64, 2), 3, PUBLISHED, MLP), 624_131, 657_473),
        (TokenNetworks(sets(4), 3, TINY, MLP), 62_531, 66_785),
        (TokenNetworks(sets(4), 3, PUBLISHED, MLP, action_token=False), 616_323, 649_665),
        (TokenNetworks(sets(4), 3, PUBLISHED, MLP, goal_attention=False), 500_355, None),
        (PlainNetworks(ObservationSpec("flat", (4,)), 3, PUBLISHED, MLP), 134_659, 137_221),
        (PlainNetworks(ObservationSpec("flat", (6,)), 3, PUBLISHED, MLP), 135_683, 139_271),
        (PlainNetworks(ObservationSpec("flat", (8,)), 3, PUBLISHED, MLP), 136_707, 141_321),
        (PlainNetworks(ObservationSpec("flat", (512,), 2), 3, PUBLISHED, MLP), 394_755, 526_593),
        (SmorlNetworks(sets(4), 3, SMALLER, MLP), 165_731, 182_657),
        (SmorlNetworks(sets(6), 3, SMALLER, MLP), 165_859, 182_785),
        (SmorlNetworks(sets(10, 2, True), 3, PUBLISHED, MLP), 297_859, 331_201),
    ],
)
def test_parameter_counts_are_those_of_the_reference(networks, actor, critic) -> None:
    assert count(networks.policy()) == actor
    if critic:
        assert count(networks.critic(1)) == critic
        assert count(networks.critic(2)) == 2 * critic


def make(spec: ObservationSpec) -> tuple[SetPolicy, SetCritic]:
    torch.manual_seed(0)
    networks = TokenNetworks(spec, 3, SMALL, MLP)
    return randomise(networks.policy()), randomise(networks.critic(2))


def test_transformers_ignore_the_order_of_entities_and_take_any_number() -> None:
    policy, critic = make(SET)
    g = torch.Generator().manual_seed(1)
    obs, goal = torch.randn(6, 4, 7, generator=g), torch.randn(6, 3, 7, generator=g)
    action = torch.rand(6, 3, generator=g)
    p, q = [2, 0, 3, 1], [1, 2, 0]
    assert torch.allclose(policy(obs[:, p], goal[:, q]), policy(obs, goal), atol=1e-4)
    shuffled = critic(obs[:, p], action, goal[:, q])
    assert torch.allclose(shuffled, critic(obs, action, goal), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(critic(obs, -action, goal), critic(obs, action, goal))
    assert not torch.allclose(critic(obs, action, goal[:, :2]), critic(obs, action, goal))
    assert policy(obs.repeat(1, 5, 1), goal[:, :1]).shape == (6, 3)


def test_without_goal_attention_the_goal_is_not_seen() -> None:
    critic = randomise(TokenNetworks(SET, 3, SMALL, MLP, goal_attention=False).critic(2))
    obs, goal, action = torch.randn(5, 4, 7), torch.randn(5, 4, 7), torch.rand(5, 3)
    assert torch.equal(critic(obs, action, goal), critic(obs, action, -goal))


def test_without_interaction_an_entity_asks_the_goal_alone() -> None:
    torch.manual_seed(0)
    networks = TokenNetworks(SET, 3, SMALL, MLP, interaction=False)
    policy = randomise(networks.policy())
    whole = TokenNetworks(SET, 3, SMALL, MLP).policy()
    assert count(whole) - count(policy) == 2 * count(whole.trunk.state_block)
    seen = []
    policy.trunk.gather_block.norm_context.register_forward_hook(lambda m, x, y: seen.append(x[0]))
    obs, goal = torch.randn(5, 4, 7), torch.randn(5, 4, 7)
    changed = obs.clone()
    changed[:, 2] += 1
    for state, target in ((obs, goal), (changed, goal), (obs, -goal)):
        policy(state, target)
    differs = [[not torch.allclose(seen[0][:, n], x[:, n]) for n in range(4)] for x in seen[1:]]
    assert differs == [[False, False, True, False], [True] * 4]


def test_nobody_attends_to_hidden_particles() -> None:
    """With no one asking for the values of hidden ones, others do not change with them."""
    policy, critic = make(PARTICLES)
    g = torch.Generator().manual_seed(1)
    obs, goal = (torch.randn(5, 6, 9, generator=g).abs() for _ in range(2))
    obs[:, 1, 3] = goal[:, 4, 3] = -1
    other_obs, other_goal = obs.clone(), goal.clone()
    other_obs[:, 1, 4:] += 1
    other_goal[:, 4, 4:] += 1
    action = torch.rand(5, 3, generator=g)
    with torch.no_grad():
        assert torch.equal(policy(obs, goal), policy(other_obs, other_goal))
        assert torch.equal(critic(obs, action, goal), critic(other_obs, action, other_goal))
        seen = other_obs.clone()
        seen[:, 1, 3] = 1
        assert not torch.allclose(policy(seen, goal), policy(obs, goal))


def test_where_all_particles_are_hidden_all_count_as_visible() -> None:
    policy, critic = make(PARTICLES)
    obs, goal, action = torch.randn(5, 6, 9), torch.randn(5, 6, 9), torch.rand(5, 3)
    obs[..., 3], goal[..., 3] = -1, -2
    seen, target = obs.clone(), goal.clone()
    seen[..., 3], target[..., 3] = 1, 1
    assert torch.equal(policy(obs, goal), policy(seen, target))
    assert torch.equal(critic(obs, action, goal), critic(seen, action, target))
    obs[0, 0, 3] = 0.5
    _, hidden = split_hidden(obs, PARTICLES)
    assert hidden.sum(dim=1).tolist() == [5, 0, 0, 0, 0]
    assert split_hidden(obs[..., :7], SET)[1] is None


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("entities", [3, 9])  # below and above the limit of the pairwise form
def test_ignored_entities_are_as_if_they_were_not_there(cross: bool, entities: int) -> None:
    torch.manual_seed(0)
    assert (entities**2 <= PAIRWISE_LIMIT) == (entities == 3)
    layer = randomise(Attention(2, 16, 4, cross, std=None))
    x, context = torch.randn(2, entities, 3, 16), torch.randn(2, entities, 3, 16)
    ignored = torch.zeros(3, entities, dtype=torch.bool)
    ignored[0, 1] = ignored[2, 0] = ignored[2, 2] = True
    out = layer(x, context if cross else None, ignored=ignored)
    for row in range(3):
        kept, one = ~ignored[row], x[:, :, row : row + 1]
        if cross:
            alone = layer(one, context[:, kept, row : row + 1])
            assert torch.allclose(out[:, :, row : row + 1], alone, atol=1e-5)
        else:
            alone = layer(one[:, kept])
            assert torch.allclose(out[:, kept, row : row + 1], alone, atol=1e-5)
