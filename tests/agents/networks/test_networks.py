"""Entity networks: the reference's parameter counts, symmetries, attention by its definition."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from agents.networks.entities import (
    EITSettings,
    EntityCritic,
    EntityPolicy,
    EntitySubgoalPolicy,
    EntityValue,
    share_member,
)
from agents.networks.families import make_networks
from agents.networks.flat import MLPSettings
from agents.networks.layers import PAIRWISE_LIMIT, Attention, Block, Linear
from agents.observations.spec import ObservationSpec
from common.foundation.errors import UserError
from tests.helpers.networks import (
    PARTICLES,
    SMALL,
    SMALL_MLP,
    SPECS,
    count,
    entities,
    observations,
    randomise,
)

MLP = MLPSettings(h_dim=512, conv_channels=(16, 32, 32))
PAPER = EITSettings(
    embed_dim=64, h_dim=256, n_head=8, init_std=0.02, dropout=0.0, n_diffuser_layers=8
)


CUBES = ObservationSpec("entities", (4, 15))
DLP_CUBES = ObservationSpec("entities", (40, 14), views=2, explicit=6)
DLP_SCENE = ObservationSpec("entities", (24, 14), explicit=6)
DLP_TETRIS = ObservationSpec("entities", (20, 14), explicit=6)
STATE = ObservationSpec("flat", (21,))
VQVAE = ObservationSpec("flat", (2048,), views=2)
RGB = ObservationSpec("image", (3, 128, 128))


def test_the_blocks_start_with_weights_of_the_wanted_size() -> None:
    torch.manual_seed(0)
    size = dataclasses.replace(PAPER, init_std=0.1)
    networks = make_networks(CUBES, 5, size, MLP)
    for net in (networks.policy(), networks.value(), networks.critic(2), networks.diffuser(10)):
        blocks = [module for module in net.modules() if isinstance(module, Block)]
        assert blocks
        for block in blocks:
            for layer in (*block.mlp, block.attention.out):
                if isinstance(layer, Linear):
                    assert layer.weight.std().item() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("spec", "actions", "pi", "q", "v", "awr", "diffuser"),
    [
        (CUBES, 5, 633_093, 758_593, 632_065, 635_471, 682_255),
        (DLP_CUBES, 5, 633_733, 759_233, 632_705, 635_854, 681_806),
        (DLP_SCENE, 5, 633_605, 759_105, 632_577, 635_726, 681_742),
        (DLP_TETRIS, 2, 632_834, 758_337, 632_577, 635_726, 681_742),
        (STATE, 5, 812_549, 817_153, 814_593, 820_757, None),
        (VQVAE, 5, 2_888_197, 2_892_801, 2_890_241, 3_936_256, None),
        (RGB, 5, 2_158_677, 2_163_281, 2_160_721, None, None),
    ],
)
def test_parameter_counts_are_those_of_the_reference(
    spec, actions, pi, q, v, awr, diffuser
) -> None:
    """The table of the specification (agents 3.1); where it has no number we test none."""
    networks = make_networks(spec, actions, PAPER, MLP)
    assert count(networks.policy()) == pi
    assert count(networks.critic(1)) == q
    assert count(networks.critic(2)) == 2 * q
    assert count(networks.value()) == v
    if awr:
        assert count(networks.subgoal_policy()) == awr
    if diffuser:
        assert count(networks.diffuser(10)) == diffuser


def test_subgoals_are_no_images() -> None:
    """The reference's subgoal policy on `rgb` has 128 outputs, one per column of the image."""
    assert count(make_networks(RGB, 128, PAPER, MLP).policy()) == 2_221_776
    networks = make_networks(RGB, 5, PAPER, MLP)
    for make in (networks.subgoal_policy, lambda: networks.diffuser(10)):
        with pytest.raises(UserError, match="subgoals cannot be images; use agent=iql, or obs="):
            make()


@pytest.mark.parametrize("kind", SPECS)
def test_every_family_has_the_same_networks_with_the_same_shapes(kind: str) -> None:
    torch.manual_seed(0)
    spec = SPECS[kind]
    networks = make_networks(spec, 3, SMALL, SMALL_MLP)
    obs, goal = observations(spec, 5)
    action = torch.rand(5, 3)
    policy, value = networks.policy(), networks.value()
    critic = randomise(networks.critic(2))
    assert policy(obs, goal).shape == (5, 3) and policy(obs, goal).abs().max() < 1
    assert value(obs, goal).shape == (5,)
    both = critic(obs, action, goal)
    assert both.shape == (2, 5)
    for member in range(2):  # an ensemble is its members side by side
        alone = share_member(critic, networks.critic(1), member)
        assert torch.allclose(alone(obs, action, goal)[0], both[member], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(critic(obs, -action, goal), both)
    assert not torch.allclose(policy(goal, obs), policy(obs, goal))
    if kind != "image":
        noise = torch.randn(4, 5, *spec.shape)
        assert networks.subgoal_policy()(obs, goal).shape == obs.shape
        assert networks.diffuser(4).sample(obs, goal, noise).shape == obs.shape


def test_the_image_encoder_is_impalas_with_one_residual_pair_per_stack() -> None:
    """Member by member with torch's own functions; 64 pixels, of which 8x8 cells are left."""
    torch.manual_seed(0)
    spec = ObservationSpec("image", (3, 64, 64))
    pair = make_networks(spec, 3, SMALL, SMALL_MLP).critic(2).pair
    obs, goal = observations(spec, 2)
    for member in range(2):
        x = torch.cat([obs, goal], dim=1) / 255.0
        for stack in pair.stacks:
            enter, first, second = ((c.weight[member], c.bias[member]) for c in stack.children())
            x = F.max_pool2d(F.conv2d(x, *enter, padding=1), 3, stride=2, padding=1)
            x = x + F.conv2d(F.relu(F.conv2d(x, *first, padding=1)), *second, padding=1)
        assert x.shape == (2, 8, 8, 8)
        out = F.relu(x).flatten(1) @ pair.out.weight[member] + pair.out.bias[member]
        assert torch.allclose(pair(obs, goal)[member], F.gelu(out), atol=1e-4)


@pytest.mark.parametrize("network", ["value", "subgoal policy", "diffuser"])
def test_particles_are_exchangeable_within_a_view_only(network: str) -> None:
    torch.manual_seed(0)
    networks = make_networks(PARTICLES, 3, SMALL, SMALL_MLP)
    obs, goal = observations(PARTICLES, 4)
    noise = torch.randn(1, 4, 6, 9)
    value, policy = randomise(networks.value()), randomise(networks.subgoal_policy())
    diffuser = randomise(networks.diffuser(1))

    def change(order: list[int]) -> float:
        """Largest change of the answer with the order."""
        if network == "value":
            orders = (obs[:, order], goal), (obs, goal[:, order])
            return max((value(*o) - value(obs, goal)).abs().max().item() for o in orders)
        if network == "subgoal policy":
            moved, plain = policy(obs[:, order], goal), policy(obs, goal)
        else:
            moved = diffuser.sample(obs[:, order], goal[:, order], noise[:, :, order])
            plain = diffuser.sample(obs, goal, noise)
        return (moved - plain[:, order]).abs().max().item()

    assert change([3, 4, 5, 0, 1, 2]) > 100 * change([2, 0, 1, 3, 5, 4])


def test_explicit_and_visual_features_are_projected_apart() -> None:
    """Half of a particle's embedding depends on the explicit features alone, half on the rest."""
    torch.manual_seed(0)
    project = randomise(make_networks(PARTICLES, 3, SMALL, SMALL_MLP).value().trunk.project)
    x = torch.randn(1, 6, 4, 9)
    changed = x.clone()
    changed[..., :4] += 1
    difference = (project(changed) - project(x)).abs().sum(dim=(0, 1, 2))
    assert (difference[:8] > 0).all() and (difference[8:] == 0).all()


def test_subgoal_policy_is_equivariant_to_the_state_and_ignores_the_order_of_the_goal() -> None:
    torch.manual_seed(0)
    obs, goal = torch.randn(6, 4, 7), torch.randn(6, 4, 7)
    p, q = torch.randperm(4), torch.randperm(4)
    network = randomise(EntitySubgoalPolicy(entities(7), SMALL))
    plain = network(obs, goal)
    assert torch.allclose(network(obs[:, p], goal[:, q]), plain[:, p], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("entities", [2, 9])  # below and above the limit of the pairwise form
def test_attention_is_softmax_of_scaled_products(cross: bool, entities: int) -> None:
    torch.manual_seed(0)
    members, batch, width, heads = 2, 3, 16, 4
    assert (entities**2 <= PAIRWISE_LIMIT) == (entities == 2)
    layer = randomise(Attention(members, width, heads, cross, std=0.02))
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
    policy = randomise(EntityPolicy(entities(7), 3, SMALL))
    value = randomise(EntityValue(entities(7), SMALL))
    critic = randomise(EntityCritic(2, entities(7), 3, SMALL))
    for network in (policy, value):
        assert torch.allclose(network(obs[:, p], goal[:, q]), network(obs, goal), atol=1e-5)
        assert not torch.allclose(network(goal, obs), network(obs, goal), rtol=0, atol=1e-4)
    shuffled = critic(obs[:, p], action, goal[:, q])
    assert torch.allclose(shuffled, critic(obs, action, goal), rtol=1e-4, atol=1e-4)


def test_rows_of_a_batch_do_not_mix() -> None:
    torch.manual_seed(0)
    obs, goal = torch.randn(5, 3, 7), torch.randn(5, 3, 7)
    value = randomise(EntityValue(entities(7), SMALL))
    single = torch.cat([value(obs[i : i + 1], goal[i : i + 1]) for i in range(5)])
    assert torch.allclose(value(obs, goal), single, atol=1e-5)


def test_critic_starts_blind_to_the_action_and_learns_to_see_it() -> None:
    torch.manual_seed(0)
    obs, goal = torch.randn(4, 3, 7), torch.randn(4, 3, 7)
    critic = EntityCritic(2, entities(7), 2, SMALL)  # zero-initialised modulation
    low, high = critic(obs, -torch.ones(4, 2), goal), critic(obs, torch.ones(4, 2), goal)
    assert torch.equal(low, high)
    randomise(critic)
    assert not torch.allclose(
        critic(obs, -torch.ones(4, 2), goal), critic(obs, torch.ones(4, 2), goal)
    )
