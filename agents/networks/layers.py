"""Transformer layers over small entity sets, several networks ("members") at once.

Letters: K members of an ensemble (two critics; 1 for every other network), B batch, N entities,
M context entities, E embedding width, H hidden width.

Activations are laid out (K, N, B, E), entities *before* the batch: with a handful of entities and
hundreds of rows the long, contiguous inner axis (B, E) is what makes elementwise work fast, and all
K members share one call per operation. At its border a network takes the usual (B, N, D).
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6
# On CPU, products with fewer output features may round a row by its place in the batch (seen at 5
# to 11). Acting fills up to this many, so that an episode has the same result in any company.
STEADY_WIDTH = 16
# Up to this many query-key pairs per head, attention as elementwise products beats batched matrix
# products of a few rows each (measured on two CPU cores, forward and backward).
PAIRWISE_LIMIT = 36
ALL = slice(None)  # the entities of a set


class Linear(nn.Module):
    """K affine maps side by side: (K, ..., fan_in) -> (K, ..., fan_out).

    Args:
        std: weights ~ N(0, std^2) and zero bias; `None` is torch's default initialisation,
            U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for both; 0 gives zeros.
    """

    def __init__(
        self, members: int, fan_in: int, fan_out: int, bias: bool = True, std: float | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, fan_in, fan_out))
        self.bias = nn.Parameter(torch.zeros(members, 1, fan_out)) if bias else None
        if std is None:
            bound = fan_in**-0.5
            nn.init.uniform_(self.weight, -bound, bound)
            if bias:
                nn.init.uniform_(self.bias, -bound, bound)
        else:
            nn.init.normal_(self.weight, std=std)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1, -2)  # (K, ..., in) -> (K, rows, in)
        weight, bias, width = self.weight, self.bias, self.weight.shape[-1]
        if 1 < width < STEADY_WIDTH and not torch.is_grad_enabled():
            missing = (0, STEADY_WIDTH - width)
            weight, bias = F.pad(weight, missing), None if bias is None else F.pad(bias, missing)
        out = torch.bmm(rows, weight) if bias is None else torch.baddbmm(bias, rows, weight)
        return out[..., :width].reshape(*x.shape[:-1], width)


class Output(Linear):
    """The last layer of V, Q and policies: in float32 also where `autocast` has the others in bf16.

    bfloat16 has eight significant bits: values near -100 would be rounded to halves.
    """

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis with one affine map per member: (K, ..., E)."""

    def __init__(self, members: int, width: int, eps: float = NORM_EPS) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, width))
        self.bias = nn.Parameter(torch.zeros(members, width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # One call per member: its affine map is then part of the kernel, and so is the gradient's
        # sum over the rows. Products over all members pass over the activations six times more.
        members = zip(x.unbind(), self.weight.unbind(), self.bias.unbind(), strict=True)
        normed = [F.layer_norm(y, y.shape[-1:], w, b, self.eps) for y, w, b in members]
        return torch.stack(normed) if len(normed) > 1 else normed[0].unsqueeze(0)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """AdaLN: normalise without affine map, then `x * (1 + scale) + shift`."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=NORM_EPS), 1 + scale)


class MLP(nn.Sequential):
    """Linear layers with activations between them, each followed by a LayerNorm if `norm`."""

    def __init__(
        self,
        members: int,
        widths: tuple[int, ...],
        *,
        std: float | None = None,
        norm: bool = False,
        final_activation: bool = False,
        activation: type[nn.Module] = nn.GELU,
    ) -> None:
        layers: list[nn.Module] = []
        for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
            layers.append(Linear(members, fan_in, fan_out, std=std))
            if i < len(widths) - 2 or final_activation:
                layers.append(activation())
                if norm:
                    layers.append(LayerNorm(members, fan_out))
        super().__init__(*layers)


class Attention(nn.Module):
    """Multi-head attention, no bias in query, key, value and output projections.

    Without a context the set attends to itself and the three projections are one product. Groups
    of entities (K, G, N, B, E) attend to each other like one set. `std` as of `Linear`.
    """

    def __init__(
        self, members: int, width: int, heads: int, cross: bool, std: float | None
    ) -> None:
        super().__init__()
        self.heads = heads
        if cross:
            self.query = Linear(members, width, width, bias=False, std=std)
            self.key_value = Linear(members, width, 2 * width, bias=False, std=std)
        else:
            self.query_key_value = Linear(members, width, 3 * width, bias=False, std=std)
        self.out = Linear(members, width, width, bias=False, std=std)
        # Which feature belongs to which head, as matrices: one sums products of queries and keys
        # over each head, scaled by 1/sqrt(d); the other spreads a head's weight over features.
        head_of = torch.arange(width) // (width // heads)
        spread = (head_of == torch.arange(heads)[:, None]).float()  # (heads, E)
        self.register_buffer("spread", spread, persistent=False)
        self.register_buffer("gather", spread.T / (width // heads) ** 0.5, persistent=False)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        rows: slice = ALL,
        ignored: Tensor | None = None,
    ) -> Tensor:
        """Gather for the entities, or groups, `rows` of x: (K, N', B, E) or (K, G', N, B, E).

        Nobody attends to the entities that are `ignored` (B, N or M); never all of a row's.
        """
        asked = x[:, rows]
        if context is None:
            q, k, v = self.query_key_value(x.flatten(1, -3)).chunk(3, dim=-1)  # each (K, N, B, E)
            q = q.unflatten(1, x.shape[1:-2])[:, rows].flatten(1, -3)
        else:
            q = self.query(asked.flatten(1, -3))
            k, v = self.key_value(context).chunk(2, dim=-1)  # each (K, M, B, E)
        attend = self._pairwise if q.shape[1] * k.shape[1] <= PAIRWISE_LIMIT else self._batched
        return self.out(attend(q, k, v, ignored)).view(asked.shape)

    def _pairwise(self, q: Tensor, k: Tensor, v: Tensor, ignored: Tensor | None) -> Tensor:
        """softmax(q k / sqrt(d)) v through elementwise products: (K, N, B, E)."""
        scores = (q[:, :, None] * k[:, None]) @ self.gather  # (K, N, M, B, heads)
        if ignored is not None:
            scores = scores.masked_fill(ignored.T[:, :, None], -torch.inf)
        weights = scores.softmax(dim=2) @ self.spread  # (K, N, M, B, E)
        return (weights * v[:, None]).sum(dim=2)

    def _batched(self, q: Tensor, k: Tensor, v: Tensor, ignored: Tensor | None) -> Tensor:
        """The same as one matrix product per row and head, for larger sets: (K, N, B, E).

        Members and batch are one axis, since torch has fused kernels for four axes only.
        """
        members, heads = len(q), self.heads
        q, k, v = (t.unflatten(-1, (heads, -1)).permute(0, 2, 3, 1, 4) for t in (q, k, v))
        q, k, v = (t.flatten(0, 1) for t in (q, k, v))  # (K B, heads, N, d)
        seen = None if ignored is None else ~ignored.repeat(members, 1)[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, seen).unflatten(0, (members, -1))
        return out.permute(0, 3, 1, 2, 4).flatten(-2)


class Block(nn.Module):
    """Pre-norm block `x + Attn(LN(x), ctx)`, then `x + MLP(LN(x))`.

    Args:
        hidden: hidden widths of the MLP.
        std: of initial weights, as of `Linear`. activation: of the MLP. eps: of plain LayerNorms.
        cross: attend to a context, which is normalised by its own LayerNorm.
        condition_std: `None` for plain LayerNorms; otherwise AdaLN, whose Linear(E, 6E) of the
            condition has weights of this standard deviation (0: gates start closed).
    """

    def __init__(
        self,
        members: int,
        width: int,
        hidden: tuple[int, ...],
        heads: int,
        *,
        std: float | None,
        cross: bool = False,
        condition_std: float | None = None,
        dropout: float = 0.0,
        activation: type[nn.Module] = nn.GELU,
        eps: float = NORM_EPS,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.attention = Attention(members, width, heads, cross, std)
        self.mlp = MLP(members, (width, *hidden, width), std=std, activation=activation)
        self.norm_context = LayerNorm(members, width, eps) if cross else None
        if condition_std is None:
            self.norm_attention = LayerNorm(members, width, eps)
            self.norm_mlp = LayerNorm(members, width, eps)
        else:
            self.modulation = Linear(members, width, 6 * width, std=condition_std)
        self.conditioned = condition_std is not None

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        condition: Tensor | None = None,
        rows: slice = ALL,
        ignored: Tensor | None = None,
    ) -> Tensor:
        """x (K, N, B, E), context (K, M, B, E) or None, condition (K, B, E) or None.

        Or in groups: x (K, G, N, B, E) with a condition (K, G, B, E) for each. Returns the entities
        or groups `rows` of x alone, of a block without context that has one condition for all,
        which saves the rest. `ignored` as of `Attention`.
        """
        if context is not None:
            context = self.norm_context(context)
        if not self.conditioned:
            attended = self.attention(self.norm_attention(x), context, rows, ignored)
            x = x[:, rows] + self._drop(attended)
            return x + self._drop(self.mlp(self.norm_mlp(x)))
        # Six vectors per row, the same for all its entities: (K, 1, B, E) or (K, G, 1, B, E) each.
        parts = self.modulation(condition).unsqueeze(-3).chunk(6, dim=-1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = parts
        attended = self.attention(modulate(x, shift_a, scale_a), context, rows, ignored)
        x = torch.addcmul(x[:, rows], gate_a, self._drop(attended))
        return torch.addcmul(x, gate_m, self._drop(self.mlp(modulate(x, shift_m, scale_m))))

    def _drop(self, x: Tensor) -> Tensor:
        # Only where something learns: targets and actions come from the whole network.
        return F.dropout(x, self.dropout) if self.dropout and torch.is_grad_enabled() else x
