"""The subgoal diffuser: schedule, equivariance, and samples of a distribution it has to learn."""

import math

import torch

from agents.networks.diffusion import SubgoalDiffuser, cosine_betas
from agents.networks.entities import EITSettings
from tests.helpers.networks import randomise

SIZE = EITSettings(
    embed_dim=16, h_dim=32, n_head=2, init_std=0.02, dropout=0.0, n_diffuser_layers=2
)


def test_cosine_schedule_by_hand() -> None:
    steps, s = 10, 0.008

    def alpha_bar(i: int) -> float:
        x = (steps + 1) * i / steps  # linspace(0, T+1, T+1)
        return math.cos((x / (steps + 1) + s) / (1 + s) * math.pi / 2) ** 2

    expected = [min(1 - alpha_bar(i + 1) / alpha_bar(i), 0.999) for i in range(steps)]
    assert torch.allclose(cosine_betas(steps), torch.tensor(expected, dtype=torch.float64))


def test_posterior_of_the_true_noise_is_the_true_posterior() -> None:
    """With the exact noise known, the predicted mean is DDPM's posterior mean of (x_t, x_0)."""
    diffuser = SubgoalDiffuser(3, SIZE, steps=10)
    betas = cosine_betas(10)
    alpha_bar = torch.cumprod(1 - betas, 0)
    t = 6
    expected_clean = alpha_bar[t - 1].sqrt() * betas[t] / (1 - alpha_bar[t])
    expected_noisy = (1 - betas[t]).sqrt() * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
    expected_var = betas[t] * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
    assert math.isclose(diffuser.mean_clean[t], expected_clean, rel_tol=1e-5)
    assert math.isclose(diffuser.mean_noisy[t], expected_noisy, rel_tol=1e-5)
    assert math.isclose(diffuser.deviation[t] ** 2, expected_var, rel_tol=1e-5)
    assert diffuser.mean_clean[0] == 1 and diffuser.mean_noisy[0] == 0


def test_loss_leaves_out_the_conditioned_slots() -> None:
    """A third of the mean error over the free slot: the other two slots are constants."""
    torch.manual_seed(0)
    diffuser = randomise(SubgoalDiffuser(5, SIZE, steps=10))
    state, subgoal, goal, noise = (torch.randn(6, 2, 5) for _ in range(4))
    t = torch.tensor([0, 1, 3, 5, 8, 9])
    alpha_bar = torch.cumprod(1 - cosine_betas(10), 0).float()[t][:, None, None]
    noisy = alpha_bar.sqrt() * subgoal + (1 - alpha_bar).sqrt() * noise
    error = (diffuser.denoiser(state, noisy, goal, t) - noise).abs().mean()
    assert torch.allclose(diffuser.loss(state, subgoal, goal, t, noise), error / 3)


def test_it_learns_both_modes_of_a_conditional_distribution() -> None:
    """Subgoal = state + 1 or state - 1 with equal chance; a regression would answer `state`."""
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    diffuser = SubgoalDiffuser(2, SIZE, steps=10)
    adam = torch.optim.Adam(diffuser.parameters(), lr=3e-3)
    for _ in range(300):
        state = torch.randn(128, 1, 2, generator=g) * 0.5
        sign = torch.randint(0, 2, (128, 1, 1), generator=g) * 2.0 - 1
        t = torch.randint(0, 10, (128,), generator=g)
        noise = torch.randn(128, 1, 2, generator=g)
        loss = diffuser.loss(state, state + sign, torch.zeros_like(state), t, noise)
        adam.zero_grad()
        loss.backward()
        adam.step()
    state = torch.randn(512, 1, 2, generator=g) * 0.5
    samples = diffuser.sample(state, state * 0, torch.randn(10, 512, 1, 2, generator=g))
    shift = (samples - state).mean(dim=(1, 2))
    # The median: without clipping, an early step far out is not always brought back.
    assert (shift.abs() - 1).abs().median() < 0.1
    # After so few updates the shares are rough, and another rounding moves them.
    back = shift[shift.abs() < 2]
    assert len(back) > 300 and 0.2 < (back > 0).float().mean() < 0.8
