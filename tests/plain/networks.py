"""The networks written plainly, for comparison: batch first, one module per critic.

What a straightforward implementation looks like: torch's own layers, entities as the second axis of
(B, N, E), attention as two products and a softmax. Each is made from one of our networks and copies
its parameters, so that both must compute the same.

Letters: B batch, N entities, D features, E embedding, H heads, A action size.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from agents.networks import diffusion, flat, layers
from agents.networks import entities as networks


def linear(source: layers.Linear, member: int = 0) -> nn.Linear:
    """One member of a layer."""
    _, fan_in, fan_out = source.weight.shape
    made = nn.Linear(fan_in, fan_out, bias=source.bias is not None)
    made.weight.data = source.weight.data[member].T.clone()
    if source.bias is not None:
        made.bias.data = source.bias.data[member, 0].clone()
    return made


def norm(source: layers.LayerNorm, member: int = 0) -> nn.LayerNorm:
    """One member of a normalisation."""
    made = nn.LayerNorm(source.weight.shape[-1], eps=source.eps)
    made.weight.data = source.weight.data[member].clone()
    made.bias.data = source.bias.data[member].clone()
    return made


def sequence(source: nn.Sequential, member: int = 0) -> nn.Sequential:
    """One member of layers that follow each other."""
    return nn.Sequential(*(_CONVERSIONS[type(layer)](layer, member) for layer in source))


_CONVERSIONS: dict[type, Callable[..., nn.Module]] = {
    layers.Linear: linear,
    layers.Output: linear,
    layers.LayerNorm: norm,
    layers.MLP: sequence,
    networks.EntityProjection: sequence,
    nn.GELU: lambda layer, member: nn.GELU(),
}


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V per head: (B, N, E), (B, M, E) -> (B, N, E)."""

    def __init__(self, source: layers.Attention, member: int) -> None:
        super().__init__()
        self.heads = source.heads
        self.cross = hasattr(source, "query")
        if self.cross:
            self.query = linear(source.query, member)
            self.key_value = linear(source.key_value, member)
        else:
            self.query_key_value = linear(source.query_key_value, member)
        self.out = linear(source.out, member)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        if self.cross:
            q, (k, v) = self.query(x), self.key_value(context).chunk(2, dim=-1)
        else:
            q, k, v = self.query_key_value(x).chunk(3, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """A transformer block, conditioned (AdaLN) or not."""

    def __init__(self, source: layers.Block, member: int) -> None:
        super().__init__()
        self.attention = Attention(source.attention, member)
        self.mlp = sequence(source.mlp, member)
        self.conditioned = source.conditioned
        if source.norm_context is not None:
            self.norm_context = norm(source.norm_context, member)
        if self.conditioned:
            self.modulation = linear(source.modulation, member)
        else:
            self.norm_attention = norm(source.norm_attention, member)
            self.norm_mlp = norm(source.norm_mlp, member)

    def forward(self, x: Tensor, context: Tensor | None, condition: Tensor | None) -> Tensor:
        if context is not None:
            context = self.norm_context(context)
        if not self.conditioned:
            x = x + self.attention(self.norm_attention(x), context)
            return x + self.mlp(self.norm_mlp(x))
        shift, scale, gate, shift_m, scale_m, gate_m = (
            self.modulation(condition).unsqueeze(1).chunk(6, dim=-1)
        )
        x = x + gate * self.attention(modulate(x, shift, scale), context)
        return x + gate_m * self.mlp(modulate(x, shift_m, scale_m))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """AdaLN's normalisation."""
    return nn.functional.layer_norm(x, x.shape[-1:], eps=layers.NORM_EPS) * (1 + scale) + shift


class Project(nn.Module):
    """Entities or particles to tokens, views told apart: (B, N, D) -> (B, N, E)."""

    def __init__(self, source: networks.EntityMixer, member: int) -> None:
        super().__init__()
        self.widths = None
        if isinstance(source.project, networks.ParticleProjection):
            self.widths = source.project.widths
            parts = source.project.explicit, source.project.visual
        else:
            parts = (source.project,)
        self.parts = nn.ModuleList(sequence(part, member) for part in parts)
        self.encoding = None
        if isinstance(source.encode_view, networks.ViewEncoding):
            self.encoding = nn.Parameter(source.encode_view.encoding.data[member, :, 0].clone())

    def forward(self, x: Tensor) -> Tensor:
        inputs = x.split(self.widths, dim=-1) if self.widths else (x,)
        tokens = torch.cat([part(y) for part, y in zip(self.parts, inputs, strict=True)], dim=-1)
        if self.encoding is None:
            return tokens
        return tokens + self.encoding.repeat_interleave(x.shape[1] // len(self.encoding), dim=0)


class EntityNetwork(nn.Module):
    """A policy, value, or one critic of an ensemble over entity sets."""

    def __init__(self, source: nn.Module, member: int = 0) -> None:
        super().__init__()
        trunk = source.trunk
        self.project = Project(trunk, member)
        blocks = trunk.state_block, trunk.goal_block, trunk.mixed_block, trunk.gather_block
        self.blocks = nn.ModuleList(Block(block, member) for block in blocks)
        self.token = nn.Parameter(trunk.output_token.data[member, 0].clone())  # (1, E)
        self.conditioned = trunk.conditioned
        if self.conditioned:
            self.embed_action = sequence(source.embed_action, member)
            self.modulation = linear(trunk.modulation, member)
        else:
            self.norm = norm(trunk.norm, member)
        self.head = sequence(trunk.head, member)
        self.out = linear(source.out, member)

    def forward(self, obs: Tensor, goal: Tensor, action: Tensor | None = None) -> Tensor:
        """(B, N, D) twice, and (B, A) for a critic -> (B, outputs)."""
        condition = self.embed_action(action) if self.conditioned else None
        state, target = self.project(obs), self.project(goal)
        x = self.blocks[0](state, None, condition)
        x = self.blocks[1](x, target, condition)
        x = self.blocks[2](x, None, condition)
        token = self.token.expand(len(obs), -1, -1)
        x = self.blocks[3](token, x, condition).squeeze(1)
        if self.conditioned:
            x = modulate(x, *self.modulation(condition).chunk(2, dim=-1))
        else:
            x = self.norm(x)
        return self.out(self.head(x))


class FlatNetwork(nn.Module):
    """A policy, value, or one critic of an ensemble over flat observations."""

    def __init__(self, source: nn.Module, member: int = 0) -> None:
        super().__init__()
        self.head = sequence(source.head, member)

    def forward(self, obs: Tensor, goal: Tensor, action: Tensor | None = None) -> Tensor:
        """(B, S) twice, and (B, A) for a critic -> (B, outputs)."""
        inputs = (obs, goal) if action is None else (obs, goal, action)
        return self.head(torch.cat(inputs, dim=-1))


_CONVERSIONS[flat.FlatHead] = sequence


class Denoiser(nn.Module):
    """The diffuser's network: predicts all three slots, of which the subgoal's is returned."""

    def __init__(self, source: diffusion.Denoiser) -> None:
        super().__init__()
        self.width, self.views = source.width, source.views
        self.encode, self.decode = sequence(source.encode), sequence(source.decode)
        self.entity = nn.Parameter(source.entity_encoding.data[0, :, 0].clone())  # (V, E)
        self.slot = nn.Parameter(source.slot_encoding.data[0, :, 0].clone())  # (3, E)
        self.embed_time = sequence(source.embed_time)
        self.blocks = nn.ModuleList(Block(block, 0) for block in source.blocks)
        self.modulation, self.mix = linear(source.modulation), linear(source.mix)

    def forward(self, state: Tensor, noisy: Tensor, goal: Tensor, t: Tensor) -> Tensor:
        n = state.shape[1]
        time = self.embed_time(diffusion.sinusoidal(t, self.width))  # (B, E)
        entity = self.entity.repeat_interleave(n // self.views, dim=0)
        places = (entity + self.slot[:, None]).flatten(0, 1)  # (3N, E)
        x = self.encode(torch.cat([state, noisy, goal], dim=1)) + places + time[:, None]
        for block in self.blocks:
            x = block(x, None, time)
        x = modulate(x, *self.modulation(time).unsqueeze(1).chunk(2, dim=-1))
        return self.decode(self.mix(x))[:, n : 2 * n]


def plain(source: nn.Module, member: int = 0) -> nn.Module:
    """One of our policies, values, critics or diffusers, written plainly."""
    if isinstance(source, diffusion.SubgoalDiffuser):
        return Denoiser(source.denoiser)
    cls = EntityNetwork if hasattr(source, "trunk") else FlatNetwork
    return cls(source, member)
