"""Parts of DLP against small independent calculations: geometry, distributions, blending."""

import math

import pytest
import torch
import torch.nn.functional as F

from common.settings.schema import build
from tests.helpers.dlp_models import SMALL
from visual_encoders.dlp.decoder import background_mask, compose
from visual_encoders.dlp.encoders import Particles, Proposals, norm_groups
from visual_encoders.dlp.losses import chamfer_kl
from visual_encoders.dlp.ops import Beta, Gaussian, cut_glimpses, place_patches
from visual_encoders.dlp.settings import DLPSettings


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def coordinate(pixel, side):
    return 2 * pixel / (side - 1) - 1


# --- geometry --------------------------------------------------------------------------------


def test_a_glimpse_of_whole_pixels_is_a_crop():
    images = random(2, 3, 32, 32)
    centre = torch.tensor([coordinate(11.5, 32), coordinate(21.5, 32)])  # row, column
    size = torch.full((2, 1, 2), 7 / 31)  # eight pixels: seven steps
    glimpse = cut_glimpses(images, centre.expand(2, 1, 2), size, 8)
    torch.testing.assert_close(glimpse[:, 0], images[:, :, 8:16, 18:26])


def test_outside_of_the_image_is_black():
    corner = torch.tensor([[[-1.0, 1.0]]])  # steps of almost three pixels
    glimpse = cut_glimpses(torch.ones(1, 1, 32, 32), corner, torch.full((1, 1, 2), 0.75), 9)
    expected = torch.zeros(9, 9)
    expected[4:, :5] = 1
    torch.testing.assert_close(glimpse[0, 0, 0], expected)


def test_placing_is_bilinear_sampling_of_the_patch_with_its_gradients():
    patches = random(2, 5, 4, 8, 8).double()
    centres = (2 * random(2, 5, 2, seed=1) - 1).double().requires_grad_()
    sizes = (0.1 + 0.5 * random(2, 5, 2, seed=2)).double().requires_grad_()
    placed = place_patches(patches, centres, sizes, 32)

    pixels = torch.linspace(-1, 1, 32, dtype=torch.float64)
    rows, columns = torch.meshgrid(pixels, pixels, indexing="ij")
    grid = torch.stack([columns, rows], dim=-1)  # column first
    grid = (grid - centres.flip(-1)[:, :, None, None]) / (sizes.flip(-1)[:, :, None, None] + 1e-9)
    expected = F.grid_sample(patches.flatten(0, 1), grid.flatten(0, 1), align_corners=True)
    expected = expected.unflatten(0, (2, 5))
    torch.testing.assert_close(placed.transpose(2, 3), expected)

    weights = random(2, 5, 4, 32, 32, seed=3).double()
    ours = torch.autograd.grad((placed.transpose(2, 3) * weights).sum(), (centres, sizes))
    theirs = torch.autograd.grad((expected * weights).sum(), (centres, sizes))
    torch.testing.assert_close(ours, theirs)


def test_a_cut_glimpse_placed_back_is_the_image_again():
    images = random(1, 1, 32, 32)
    centre = torch.tensor([[[coordinate(11.5, 32), coordinate(21.5, 32)]]])
    size = torch.full((1, 1, 2), 7 / 31)
    canvas = place_patches(cut_glimpses(images, centre, size, 8), centre, size, 32)[0, 0, :, 0]
    torch.testing.assert_close(canvas[8:16, 18:26], images[0, 0, 8:16, 18:26], rtol=0, atol=1e-4)
    assert canvas[:7].abs().max() == 0 and canvas[:, :17].abs().max() == 0


# --- proposals -------------------------------------------------------------------------------


def proposals_of(heat):
    """Proposals of one 64 x 64 image whose 64 heat maps are all `heat` (2, 2)."""
    proposals = Proposals(build(DLPSettings, SMALL))
    proposals.pyramid = torch.nn.Module()
    proposals.pyramid.forward = lambda patches: heat.expand(len(patches), 1, 2, 2)
    return proposals(torch.zeros(1, 3, 64, 64))


def test_a_sharp_heat_map_keeps_a_small_variance():
    proposed = proposals_of(torch.tensor([[1000.0, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(proposed.spread[0, 0, :2], torch.tensor([1e-6, 1e-6]))


def test_a_patch_reads_its_own_pixels_only():
    torch.manual_seed(0)
    proposals = Proposals(build(DLPSettings, SMALL))
    for weight in proposals.parameters():
        torch.nn.init.normal_(weight)
    images = random(1, 3, 64, 64)
    changed = images.clone()
    changed[:, :, 16:24, 40:48] = 0
    moved = (proposals(images).positions != proposals(changed).positions).any(dim=-1)[0]
    assert moved.nonzero().flatten().tolist() == [2 * 8 + 5]


# --- layers ----------------------------------------------------------------------------------


def test_groups_of_every_number_of_channels():
    assert [norm_groups(n) for n in (20, 24, 25, 22, 23, 9, 1)] == [4, 4, 5, 2, 1, 3, 1]
    assert all(n % norm_groups(n) == 0 for n in range(1, 65))


# --- distributions ---------------------------------------------------------------------------


def test_beta_kl():
    a, b = 0.2 + 3 * random(5, 1), 0.2 + 3 * random(5, 1, seed=1)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Beta(a, b), torch.distributions.Beta(0.1, 0.3)
    )
    torch.testing.assert_close(Beta(a, b).kl(0.1, 0.3), expected, rtol=1e-3, atol=1e-3)


def test_without_a_generator_draws_are_means():
    gaussian = Gaussian(random(3, 2), random(3, 2))
    assert torch.equal(gaussian.draw(None), gaussian.mean)
    assert Beta(torch.tensor(1.0), torch.tensor(3.0)).draw(None) == 0.25


@pytest.mark.parametrize(("a", "b"), [(0.1, 0.1), (2.0, 5.0)])
def test_law_and_gradients_of_beta_draws(a, b):
    count = 40_000
    a_rows, b_rows = (torch.full((count,), x, requires_grad=True) for x in (a, b))
    draws = Beta(a_rows, b_rows).draw(torch.Generator().manual_seed(0))
    variance = a * b / ((a + b) ** 2 * (a + b + 1))
    deviation = math.sqrt(variance / count)
    assert draws.mean().item() == pytest.approx(a / (a + b), abs=5 * deviation)
    assert draws.var().item() == pytest.approx(variance, rel=0.05)
    slopes = torch.autograd.grad(draws.sum(), (a_rows, b_rows))
    expected = b / (a + b) ** 2, -a / (a + b) ** 2  # of the mean a / (a + b)
    for slope, wanted in zip(slopes, expected, strict=True):
        error = 5 * slope.std().item() / math.sqrt(count)
        assert slope.mean().item() == pytest.approx(wanted, abs=error)


def test_extreme_betas_have_finite_draws_and_gradients():
    logs = torch.tensor([[-40.0, -40.0], [-40.0, 5.0], [6.0, -40.0], [8.0, 8.0]]).repeat(50, 1)
    logs.requires_grad_()
    draws = Beta.from_logs(logs).draw(torch.Generator().manual_seed(0))
    draws.sum().backward()
    assert draws.isfinite().all() and logs.grad.isfinite().all()
    assert draws.min() >= 0 and draws.max() <= 1


def test_chamfer_term_by_hand():
    bases = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])
    proposals = torch.tensor([[[0.0, 0.1], [0.0, 0.3]]])
    # To the nearest: bases 0.1^2, 1 + 0.1^2; proposals 0.1^2, 0.3^2; halved.
    assert chamfer_kl(bases, proposals, 1.0).item() == pytest.approx(0.5 * (0.01 + 1.01 + 0.1))
    one = torch.distributions.Normal(0.0, 1.0)
    apart = torch.distributions.kl_divergence(one, torch.distributions.Normal(0.3, 2.0))
    apart += torch.distributions.kl_divergence(one, torch.distributions.Normal(0.4, 2.0))
    single = chamfer_kl(torch.zeros(1, 1, 2), torch.tensor([[[0.3, 0.4]]]), 2.0)
    assert single.item() == pytest.approx(2 * apart.item())


# --- background and blending -----------------------------------------------------------------


def test_boxes_of_the_background_mask():
    side = 128
    positions = torch.tensor([[[coordinate(40, side), coordinate(70, side)], [1.0, -1.0]]])
    mask = background_mask(positions, torch.tensor([[[0.25], [1.0]]]), 32, side)[0, 0]
    covered = 1 - mask
    assert covered[:100].sum().item() == pytest.approx(0.25 * 32 * 32)
    rows, columns = covered[:100].nonzero().T
    assert rows.unique().tolist() in ([*range(24, 56)], [*range(25, 57)])
    assert columns.unique().tolist() in ([*range(54, 86)], [*range(55, 87)])
    assert covered[100:].sum().item() in (16 * 15, 16 * 16, 15 * 16, 15 * 15, 17 * 16, 16 * 17)


def test_boxes_add_up_to_one_at_most():
    on = torch.tensor([[[0.4], [0.5], [0.6]]])
    positions = torch.zeros(1, 3, 2)
    two = background_mask(positions[:, :2], on[:, :2], 32, 64)
    assert two.min().item() == pytest.approx(0.1)
    assert background_mask(positions, on, 32, 64).min() == 0


def blend(depths, on=(1.0, 1.0)):
    """Two opaque patches over one another, red and green, on a blue background: (3, 32, 32)."""
    patches = torch.zeros(1, 2, 4, 8, 8)
    patches[:, :, 0] = 1
    patches[0, 0, 1] = patches[0, 1, 2] = 1
    particles = Particles(
        position=torch.zeros(1, 2, 2),
        scale=torch.zeros(1, 2, 2),
        depth=torch.tensor(depths).view(1, 2, 1),
        on=torch.tensor(on).view(1, 2, 1),
        features=torch.zeros(1, 2, 1),
    )
    background = torch.zeros(1, 3, 32, 32)
    background[:, 2] = 1
    return compose(patches, particles, background)


def test_blending_by_hand():
    picture = blend((0.0, 1.0), on=(0.5, 0.8))
    near, far = 0.5 / 2, 0.8 / (1 + math.e)
    total = near + far + 1e-5
    masks = 0.5 * near / total, 0.8 * far / total
    expected = torch.tensor([*masks, 1 - sum(masks)])
    torch.testing.assert_close(picture.image[0, :, 16, 16], expected)
    torch.testing.assert_close(picture.masks[0, :, 16, 16], expected[:2])
    torch.testing.assert_close(picture.foreground[0, :, 16, 16], torch.tensor([*masks, 0.0]))


def test_noise_on_alphas():
    """One half-transparent patch of alpha 0.5 over everything: its mask is its noisy alpha."""
    patch = torch.full((1, 1, 4, 8, 8), 0.5)
    rows = torch.zeros(1, 1, 7)
    rows[..., 2:4] = 20.0  # as large as the image
    rows[..., 5] = 1.0
    particles, background = Particles.from_rows(rows), torch.zeros(1, 3, 64, 64)
    still = compose(patch, particles, background).masks
    torch.testing.assert_close(still, torch.full_like(still, 0.5), rtol=0, atol=1e-4)
    noisy = compose(patch, particles, background, torch.Generator().manual_seed(0)).masks
    assert noisy.mean().item() == pytest.approx(0.5, abs=0.01)
    assert noisy.std().item() == pytest.approx(0.1, rel=0.05)
    opaque = compose(2 * patch, particles, background, torch.Generator().manual_seed(0)).masks
    assert opaque.max() <= 1 and (opaque > 1 - 1e-4).float().mean().item() == pytest.approx(
        0.5, abs=0.05
    )


def test_without_particles_the_background_shows():
    picture = blend((0.0, 0.0), on=(0.0, 0.0))
    assert torch.equal(picture.image, picture.background)
