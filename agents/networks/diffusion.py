"""Conditional diffusion over entity sets in slots, and of subgoals with it.

Letters: B batch, N entities, D features, E embedding, T diffusion steps. The sets of some slots are
known and put back clean at every step (inpainting), so noise is only ever drawn for what is free.
Of subgoals: three slots [state, subgoal, goal], the middle one free.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.networks.entities import EITSettings, entities_first
from agents.networks.layers import MLP, Block, Linear, modulate

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


class SlotDenoiser(nn.Module):
    """Base of the denoisers: a transformer over the entities of all slots.

    Equivariant: reordering the entities (of a view) of a slot reorders what is said of them.

    Args:
        features: D. slots: number of sets. views: as of `ObservationSpec`.
        gate_std: standard deviation of the weights that make shifts, scales and gates; `None` is
            that of the others, as published (the reference means its gates to start closed, but
            initialises them anew); 0 lets every block start as the identity.
    """

    def __init__(
        self,
        features: int,
        size: EITSettings,
        slots: int,
        views: int = 1,
        gate_std: float | None = None,
    ) -> None:
        super().__init__()
        width, std = size.embed_dim, size.init_std
        gate_std = std if gate_std is None else gate_std
        self.width, self.views = width, views
        self.encode = MLP(1, (features, size.h_dim, width))
        self.entity_encoding = nn.Parameter(torch.randn(1, views, 1, width) * std)
        self.slot_encoding = nn.Parameter(torch.randn(1, slots, 1, width) * std)
        self.embed_time = MLP(1, (width, 4 * width, width))
        options = {"std": std, "dropout": size.dropout}
        self.blocks = nn.ModuleList(
            Block(1, width, (4 * width,), size.n_head, condition_std=gate_std, **options)
            for _ in range(size.n_diffuser_layers)
        )
        self.modulation = Linear(1, width, 2 * width, std=gate_std)
        self.mix = Linear(1, width, width, bias=False, std=std)
        self.decode = MLP(1, (width, size.h_dim, features))

    def time(self, t: Tensor) -> Tensor:
        """The embedding of diffusion times: (B,) -> (1, B, E)."""
        return self.embed_time(sinusoidal(t, self.width).unsqueeze(0))

    def tokens(self, sets: Tensor, time: Tensor) -> Tensor:
        """One token per entity: (1, slots, N, B, D), (1, B, E) -> (1, slots, N, B, E)."""
        slots, n = sets.shape[1:3]
        encodings = self._encodings(slots, n).unflatten(1, (slots, n))
        return self.encode(sets) + encodings + time[:, None, None]

    def _encodings(self, slots: int, n: int) -> Tensor:
        """Marks of slots, and of views if there are several: (1, slots * N, 1, E)."""
        entities = self.entity_encoding
        if self.views > 1:
            entities = entities.repeat_interleave(n // self.views, dim=1).repeat(1, slots, 1, 1)
        return entities + self.slot_encoding.repeat_interleave(n, dim=1)

    def head(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens of some slots, ready to be decoded: (1, G, N, B, E), (1, G or 1, B, E)."""
        shift, scale = self.modulation(condition).unsqueeze(-3).chunk(2, dim=-1)
        return self.mix(modulate(x, shift, scale))


class Denoiser(SlotDenoiser):
    """Predicts the noise in the subgoal slot from the three sets and the diffusion time."""

    def __init__(self, features: int, size: EITSettings, views: int = 1) -> None:
        super().__init__(features, size, SLOTS, views)

    def forward(self, state: Tensor, noisy: Tensor, goal: Tensor, t: Tensor) -> Tensor:
        """state, noisy subgoal, goal (B, N, D) and time (B,) -> noise of the subgoal (B, N, D)."""
        sets = torch.stack([entities_first(part) for part in (state, noisy, goal)], dim=1)
        time = self.time(t)
        x, condition = self.tokens(sets, time), time.unsqueeze(1)  # the same for all slots
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x, condition=condition)
        x = last(x, condition=condition, rows=slice(1, 2))  # only the subgoal's slot is asked for
        return self.decode(self.head(x, condition))[0, 0].transpose(0, 1)


class GaussianDiffusion(nn.Module):
    """The schedule, and ancestral sampling with it (DDPM, Ho et al. 2020).

    Args:
        steps: T. predicts_noise: whether networks predict the noise, or else what is clean.
    """

    def __init__(self, steps: int, predicts_noise: bool) -> None:
        super().__init__()
        self.steps, self.predicts_noise = steps, predicts_noise
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

    def diffuse(self, clean: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Noisy `clean` (B, ...) at times t (B,) in 0..T-1, with `noise` (B, ...)."""
        shape = (-1,) + (1,) * (clean.dim() - 1)
        return self.signal[t].view(shape) * clean + self.noise[t].view(shape) * noise

    @torch.no_grad()
    def ancestral(self, predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor) -> Tensor:
        """Sample without clipping of the predicted clean values: (B, ...).

        Args:
            predict: what a network says of (B, ...) at times (B,).
            noise: standard normal (T, B, ...): the start, then one draw per step but the last.
        """
        x = noise[0]
        for step in reversed(range(self.steps)):
            clean = predict(x, torch.full((len(x),), step, device=x.device))
            if self.predicts_noise:
                clean = (x - self.noise[step] * clean) / self.signal[step]
            x = self.mean_clean[step] * clean + self.mean_noisy[step] * x
            if step > 0:
                x = x + self.deviation[step] * noise[self.steps - step]
        return x


class SubgoalDiffuser(GaussianDiffusion):
    """Gaussian diffusion of subgoal sets conditioned on state and goal sets.

    Args:
        features: D. size: network widths. steps: T. views: as of `ObservationSpec`.
    """

    def __init__(self, features: int, size: EITSettings, steps: int, views: int = 1) -> None:
        super().__init__(steps, predicts_noise=True)
        self.denoiser = Denoiser(features, size, views)

    def loss(
        self, state: Tensor, subgoal: Tensor, goal: Tensor, t: Tensor, noise: Tensor
    ) -> Tensor:
        """L1 error of the predicted noise; sets and noise (B, N, D), t (B,) in 0..T-1.

        The mean runs over all three slots. Differs from the reference: the two conditioned slots,
        whose error is a constant without gradient, are left out of the reported number.
        """
        state, subgoal, goal, noise = map(self._sets, (state, subgoal, goal, noise))
        noisy = self.diffuse(subgoal, t, noise)
        return F.l1_loss(self.denoiser(state, noisy, goal, t), noise) / SLOTS

    def sample(self, state: Tensor, goal: Tensor, noise: Tensor) -> Tensor:
        """Subgoals (B, N, D) for state and goal (B, N, D); `noise` (T, B, N, D)."""
        sets, target, noise = map(self._sets, (state, goal, noise))
        sample = self.ancestral(lambda x, t: self.denoiser(sets, x, target, t), noise)
        return sample.reshape(state.shape)

    def _sets(self, x: Tensor) -> Tensor:
        return x


class FlatDiffuser(SubgoalDiffuser):
    """The same over flat observations (B, S), of S `features`: one token per view."""

    def __init__(self, features: int, size: EITSettings, steps: int, views: int = 1) -> None:
        super().__init__(features // views, size, steps, views)

    def _sets(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.denoiser.views, -1))  # (..., S) -> (..., V, S/V)
