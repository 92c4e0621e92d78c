"""ECRL's golden vectors, and the weights that they belong to."""

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from agents.ecrl.td3 import TD3, TD3Settings
from agents.networks.entities import EITSettings
from agents.networks.flat import PlainCritic, PlainPolicy
from agents.networks.layers import Attention, Block, LayerNorm, Linear
from agents.networks.tokens import SetCritic, SetPolicy
from agents.observations.spec import ObservationSpec
from tests.helpers.agents import SETS, context, settings_of

GOLDEN = Path(__file__).parents[1] / "fixtures" / "ecrl_golden.npz"
PUBLISHED = EITSettings(
    embed_dim=64, h_dim=256, n_head=8, init_std=0.02, dropout=0.0, n_diffuser_layers=8
)


@functools.cache
def _arrays() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


def golden(prefix: str) -> dict[str, Tensor]:
    """The vectors below `prefix/` by their last name; numbers in float32."""
    found = {k: torch.from_numpy(v) for k, v in _arrays().items() if k.startswith(f"{prefix}/")}
    assert found, prefix
    short = {k.removeprefix(f"{prefix}/"): v for k, v in found.items()}
    return {k: v.float() if v.is_floating_point() else v for k, v in short.items()}


class Weights:
    """Draws weights of one network, tensor by tensor, into a member of an ensemble."""

    def __init__(self, seed: int, member: int = 0) -> None:
        self.random, self.member = np.random.RandomState(seed), member

    def matrix(self, out: int, inputs: int) -> Tensor:
        """As our layers hold it: (in, out)."""
        return torch.from_numpy(self.random.standard_normal((out, inputs)) / inputs**0.5).T

    def vector(self, size: int) -> Tensor:
        return torch.from_numpy(0.1 * self.random.standard_normal(size))

    def put(self, parameter: nn.Parameter, value: Tensor) -> None:
        own = parameter.data[self.member]
        own.copy_(value.reshape(own.shape))

    def linear(self, layer: Linear) -> None:
        _, inputs, out = layer.weight.shape
        self.put(layer.weight, self.matrix(out, inputs))
        if layer.bias is not None:
            self.put(layer.bias, self.vector(out))

    def layers(self, mlp: nn.Module) -> None:
        for layer in mlp.modules():
            if isinstance(layer, Linear):
                self.linear(layer)

    def norm(self, layer: LayerNorm) -> None:
        self.put(layer.weight, 1 + self.vector(layer.weight.shape[-1]))
        self.put(layer.bias, self.vector(layer.bias.shape[-1]))

    def attention(self, layer: Attention, cross: bool) -> None:
        width = layer.out.weight.shape[-1]
        query, key, value = (self.matrix(width, width) for _ in range(3))
        if cross:
            self.put(layer.query.weight, query)
            self.put(layer.key_value.weight, torch.cat([key, value], dim=1))
        else:
            self.put(layer.query_key_value.weight, torch.cat([query, key, value], dim=1))
        self.linear(layer.out)

    def block(self, block: Block) -> None:
        self.norm(block.norm_attention)
        cross = block.norm_context is not None
        if cross:
            self.norm(block.norm_context)
        self.attention(block.attention, cross)
        self.norm(block.norm_mlp)
        self.layers(block.mlp)


def fill_tokens(net: SetPolicy | SetCritic, seed: int, member: int = 0) -> None:
    weights, trunk = Weights(seed, member), net.trunk
    weights.linear(trunk.project)
    weights.linear(trunk.project_goal)
    for block in (trunk.state_block, trunk.goal_block, trunk.mixed_block, trunk.gather_block):
        weights.block(block)
    weights.norm(trunk.norm)
    weights.linear(trunk.read)
    weights.layers(net.head)
    weights.put(trunk.output_token, weights.vector(trunk.size.embed_dim))
    if trunk.spec.views > 1:
        views = [weights.vector(trunk.size.embed_dim) for _ in range(trunk.spec.views)]
        weights.put(trunk.encode_view.encoding, torch.stack(views))
    if isinstance(net, SetCritic):
        weights.layers(net.embed_action)


def fill_smorl(net: SetPolicy | SetCritic, seed: int) -> None:
    weights, trunk = Weights(seed), net.trunk
    weights.linear(trunk.project)
    weights.linear(trunk.project_goal)
    for view in trunk.views:
        weights.attention(view.conditioned, cross=True)
        weights.attention(view.unconditioned, cross=True)
    weights.layers(net.head)
    for view in trunk.views:
        weights.put(view.token, weights.vector(view.token.shape[-1]))
    if isinstance(net, SetCritic):
        weights.layers(net.embed_action)


def fill_plain(net: PlainPolicy | PlainCritic, seed: int) -> None:
    weights = Weights(seed)
    weights.layers(net.head)
    if isinstance(net, PlainCritic):
        weights.layers(net.embed_action)


def td3_settings(**changes) -> TD3Settings:
    return settings_of("td3", **changes)


def make_td3(spec: ObservationSpec = SETS, **changes) -> TD3:
    torch.manual_seed(0)
    return TD3(td3_settings(**changes), context(spec))


def make_unbranched_td3() -> TD3:
    """As on a device whose updates are captured; policy and targets have rhythms of their own."""
    agent = make_td3(p_hindsight=1.0, policy_delay=2, target_period=3)
    agent.branches = False
    return agent
