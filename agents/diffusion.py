"""Conditional diffusion over [state, subgoal, goal] entity sets (spec: agents 4).

Letters: B batch, N entities, D features, E embedding, T diffusion steps. Only the middle slot is
free: state and goal are put back clean at every step (inpainting), so noise is only ever drawn for
the subgoal.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.layers import BLOCK_STD, MLP, Block, Linear, modulate
from agents.networks import EITSettings, entities_first

SLOTS = 3  # state, subgoal, goal


def cosine_betas(steps: int, s: float = 0.008) -> Tensor:
    """Variances of the cosine schedule (Nichol & Dhariwal 2021), clipped to [0, 0.999]: (T,)."""
    x = torch.linspace(0, steps + 1, steps + 1, dtype=torch.float64)
    alpha_bar = torch.cos((x / (steps + 1) + s) / (1 + s) * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(0, 0.999)


def sinusoidal(t: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of integer times: (B,) -> (B, width)."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * -(math.log(10000) / (half - 1)))
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Denoiser(nn.Module):
    """Predicts the noise in the subgoal slot from the three sets and the diffusion time.

    Equivariant: reordering the entities (of a view) reorders the prediction.
    """

    def __init__(self, features: int, size: EITSettings, views: int = 1) -> None:
        super().__init__()
        width = size.embed_dim
        self.width, self.views = width, views
        self.encode = MLP(1, (features, size.h_dim, width))
        self.entity_encoding = nn.Parameter(torch.randn(1, views, 1, width) * BLOCK_STD)
        self.slot_encoding = nn.Parameter(torch.randn(1, SLOTS, 1, width) * BLOCK_STD)
        self.embed_time = MLP(1, (width, 4 * width, width))
        # The reference means its gates to start closed, but a later initialisation pass gives them
        # N(0, 0.02^2) like every other weight of the transformer; the published results have that.
        self.blocks = nn.ModuleList(
            Block(
                1,
                width,
                (4 * width,),
                size.n_head,
                condition_std=BLOCK_STD,
                dropout=size.dropout,
            )
            for _ in range(size.n_diffuser_layers)
        )
        self.modulation = Linear(1, width, 2 * width, std=BLOCK_STD)
        self.mix = Linear(1, width, width, bias=False, std=BLOCK_STD)
        self.decode = MLP(1, (width, size.h_dim, features))

    def forward(self, state: Tensor, noisy: Tensor, goal: Tensor, t: Tensor) -> Tensor:
        """state, noisy subgoal, goal (B, N, D) and time (B,) -> noise of the subgoal (B, N, D)."""
        n = state.shape[1]
        x = torch.cat([entities_first(part) for part in (state, noisy, goal)], dim=1)
        time = self.embed_time(sinusoidal(t, self.width).unsqueeze(0))  # (1, B, E)
        x = self.encode(x) + self._encodings(n) + time.unsqueeze(1)
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x, condition=time)
        x = last(x, condition=time, rows=slice(n, 2 * n))  # only the subgoal's slot is asked for
        x = modulate(x, *self.modulation(time).unsqueeze(1).chunk(2, dim=-1))
        return self.decode(self.mix(x)).squeeze(0).transpose(0, 1)

    def _encodings(self, n: int) -> Tensor:
        """What tells slots, and views if there are several, apart: (1, 3N, 1, E)."""
        entities = self.entity_encoding
        if self.views > 1:
            entities = entities.repeat_interleave(n // self.views, dim=1).repeat(1, SLOTS, 1, 1)
        return entities + self.slot_encoding.repeat_interleave(n, dim=1)


class SubgoalDiffuser(nn.Module):
    """Gaussian diffusion of subgoal sets conditioned on state and goal sets.

    Args:
        features: D. size: network widths. steps: T. views: the first N/views entities are those of
            the first view, and so on.
    """

    def __init__(self, features: int, size: EITSettings, steps: int, views: int = 1) -> None:
        super().__init__()
        self.steps = steps
        self.denoiser = Denoiser(features, size, views)
        betas = cosine_betas(steps)
        alpha_bar = torch.cumprod(1 - betas, dim=0)
        previous = F.pad(alpha_bar[:-1], (1, 0), value=1.0)
        variance = betas * (1 - previous) / (1 - alpha_bar)
        tables = {
            "signal": alpha_bar.sqrt(),
            "noise": (1 - alpha_bar).sqrt(),
            "mean_clean": betas * previous.sqrt() / (1 - alpha_bar),
            "mean_noisy": (1 - previous) * (1 - betas).sqrt() / (1 - alpha_bar),
            "deviation": variance.clamp(min=1e-20).sqrt(),
        }
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)

    def loss(
        self, state: Tensor, subgoal: Tensor, goal: Tensor, t: Tensor, noise: Tensor
    ) -> Tensor:
        """L1 error of the predicted noise; sets and noise (B, N, D), t (B,) in 0..T-1.

        The mean runs over all three slots. Differs from the reference: the two conditioned slots,
        whose error is a constant without gradient, are left out of the reported number.
        """
        scale = self.signal[t][:, None, None], self.noise[t][:, None, None]
        noisy = scale[0] * subgoal + scale[1] * noise
        return F.l1_loss(self.denoiser(state, noisy, goal, t), noise) / SLOTS

    @torch.no_grad()
    def sample(self, state: Tensor, goal: Tensor, noise: Tensor) -> Tensor:
        """Ancestral sampling (DDPM) without clipping of the predicted clean set.

        Args:
            state, goal: (B, N, D).
            noise: standard normal (T, B, N, D): the start, then one draw per step but the last.

        Returns:
            Subgoals (B, N, D).
        """
        x = noise[0]
        for step in reversed(range(self.steps)):
            t = torch.full((len(x),), step, device=x.device)
            predicted = self.denoiser(state, x, goal, t)
            clean = (x - self.noise[step] * predicted) / self.signal[step]
            x = self.mean_clean[step] * clean + self.mean_noisy[step] * x
            if step > 0:
                x = x + self.deviation[step] * noise[self.steps - step]
        return x


class FlatDiffuser(SubgoalDiffuser):
    """The same over flat observations (B, S): one token per view.

    Args:
        features: S, of all views. Everything else as for `SubgoalDiffuser`.
    """

    def __init__(self, features: int, size: EITSettings, steps: int, views: int = 1) -> None:
        super().__init__(features // views, size, steps, views)

    def loss(
        self, state: Tensor, subgoal: Tensor, goal: Tensor, t: Tensor, noise: Tensor
    ) -> Tensor:
        state, subgoal, goal, noise = map(self._tokens, (state, subgoal, goal, noise))
        return super().loss(state, subgoal, goal, t, noise)

    def sample(self, state: Tensor, goal: Tensor, noise: Tensor) -> Tensor:
        return super().sample(*map(self._tokens, (state, goal, noise))).flatten(-2)

    def _tokens(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.denoiser.views, -1))  # (..., S) -> (..., V, S/V)
