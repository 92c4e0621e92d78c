"""Entity networks: the reference's parameter counts, symmetries, attention by its definition."""

import pytest
import torch

from agents.diffusion import SubgoalDiffuser
from agents.layers import PAIRWISE_LIMIT, Attention
from agents.networks import (
    EITSettings,
    EntityCritic,
    EntityPolicy,
    EntityValue,
    share_member,
)

PAPER = EITSettings(embed_dim=64, h_dim=256, n_head=8, dropout=0.0, n_diffuser_layers=8)
SMALL = EITSettings(embed_dim=16, h_dim=24, n_head=4, dropout=0.0, n_diffuser_layers=2)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def randomise(module: torch.nn.Module) -> torch.nn.Module:
    """Give every parameter, the closed gates too, a value that matters."""
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return module


def test_parameter_counts_are_those_of_the_reference() -> None:
    assert count(EntityPolicy(15, 5, PAPER)) == 633_093
    assert count(EntityCritic(1, 15, 5, PAPER)) == 758_593
    assert count(EntityCritic(2, 15, 5, PAPER)) == 2 * 758_593
    assert count(EntityValue(15, PAPER)) == 632_065
    assert count(SubgoalDiffuser(15, PAPER, steps=10)) == 682_255


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("entities", [2, 9])  # below and above the limit of the pairwise form
def test_attention_is_softmax_of_scaled_products(cross: bool, entities: int) -> None:
    torch.manual_seed(0)
    members, batch, width, heads = 2, 3, 16, 4
    assert (entities**2 <= PAIRWISE_LIMIT) == (entities == 2)
    layer = randomise(Attention(members, width, heads, cross))
    x = torch.randn(members, entities, batch, width)
    context = torch.randn(members, entities, batch, width) if cross else None
    out = layer(x, context)
    source = x if context is None else context
    d = width // heads
    for m in range(members):
        if cross:
            wq, wkv = layer.query.weight[m], layer.key_value.weight[m]
            w = torch.cat([wq, wkv], dim=1)
        else:
            w = layer.query_key_value.weight[m]
        for b in range(batch):
            merged = torch.zeros(entities, width)
            for h in range(heads):
                cols = [slice(i * width + h * d, i * width + (h + 1) * d) for i in range(3)]
                q, k, v = (
                    src[m, :, b] @ w[:, c] for src, c in zip((x, source, source), cols, strict=True)
                )
                weights = torch.softmax(q @ k.T / d**0.5, dim=-1)
                merged[:, h * d : (h + 1) * d] = weights @ v
            expected = merged @ layer.out.weight[m]
            assert torch.allclose(out[m, :, b], expected, atol=1e-5)


def test_policy_value_and_critic_ignore_the_order_of_entities() -> None:
    torch.manual_seed(0)
    obs, goal, action = torch.randn(6, 4, 7), torch.randn(6, 4, 7), torch.rand(6, 3)
    p, q = torch.randperm(4), torch.randperm(4)
    policy = randomise(EntityPolicy(7, 3, SMALL))
    value = randomise(EntityValue(7, SMALL))
    critic = randomise(EntityCritic(2, 7, 3, SMALL))
    for network in (policy, value):
        assert torch.allclose(network(obs[:, p], goal[:, q]), network(obs, goal), atol=1e-5)
        assert not torch.allclose(network(goal, obs), network(obs, goal), rtol=0, atol=1e-4)
    shuffled = critic(obs[:, p], action, goal[:, q])
    assert torch.allclose(shuffled, critic(obs, action, goal), rtol=1e-4, atol=1e-4)


def test_rows_of_a_batch_do_not_mix() -> None:
    torch.manual_seed(0)
    obs, goal = torch.randn(5, 3, 7), torch.randn(5, 3, 7)
    value = randomise(EntityValue(7, SMALL))
    single = torch.cat([value(obs[i : i + 1], goal[i : i + 1]) for i in range(5)])
    assert torch.allclose(value(obs, goal), single, atol=1e-5)


def test_an_ensemble_is_its_members_side_by_side() -> None:
    torch.manual_seed(0)
    obs, goal, action = torch.randn(5, 3, 7), torch.randn(5, 3, 7), torch.rand(5, 2)
    critic = randomise(EntityCritic(2, 7, 2, SMALL))
    both = critic(obs, action, goal)
    assert not torch.allclose(both[0], both[1])
    for member in range(2):
        alone = share_member(critic, EntityCritic(1, 7, 2, SMALL), member)
        assert torch.allclose(alone(obs, action, goal)[0], both[member], atol=1e-5)


def test_critic_starts_blind_to_the_action_and_learns_to_see_it() -> None:
    torch.manual_seed(0)
    obs, goal = torch.randn(4, 3, 7), torch.randn(4, 3, 7)
    critic = EntityCritic(2, 7, 2, SMALL)  # zero-initialised modulation
    low, high = critic(obs, -torch.ones(4, 2), goal), critic(obs, torch.ones(4, 2), goal)
    assert torch.equal(low, high)
    randomise(critic)
    assert not torch.allclose(
        critic(obs, -torch.ones(4, 2), goal), critic(obs, torch.ones(4, 2), goal)
    )
