"""The DLP network as a whole: sets of particles of any size, what runs, phases of training."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from common.foundation.errors import UserError
from common.settings.schema import SettingError, build
from tests.helpers.dlp_models import OBJECTIVE, PUBLISHED, SMALL, small_images, small_model
from visual_encoders.dlp.encoders import Particles
from visual_encoders.dlp.losses import ObjectiveSettings, chamfer_kl, kl_terms, objective, phase_of
from visual_encoders.dlp.model import DLP, MAIN, Phase
from visual_encoders.dlp.settings import DLPSettings

NOISY_WARMUP, NOISY = Phase(warmup=True, noisy=True), Phase(warmup=False, noisy=True)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- sets ------------------------------------------------------------------------------------


def test_fewer_particles_are_the_first_of_more_whatever_their_number():
    model = small_model(particles=64)
    images = small_images(1)
    everything = model.encode(images)
    for count in range(1, 65):
        model.particles = count
        fewer = model.encode(images)
        torch.testing.assert_close(fewer, everything[:, :count], rtol=1e-4, atol=1e-5)


def test_no_particle_comes_twice():
    rows = small_model(particles=64).encode(small_images(1))[0]
    assert len(rows[:, :2].unique(dim=0)) == 64


def test_pictures_do_not_depend_on_the_order_of_particles():
    model = small_model()
    with torch.no_grad():
        encoding = model(small_images())
        rows, code = encoding.particles.rows(), encoding.background_code
        picture = model.decode(encoding.particles, code)
        order = [3, 1, 5, 0, 4, 2]
        shuffled = model.decode(Particles.from_rows(rows[:, order]), code)
    torch.testing.assert_close(shuffled.image, picture.image)
    torch.testing.assert_close(shuffled.masks, picture.masks[:, order])


def test_images_of_a_batch_do_not_mix():
    model = small_model()
    images = small_images(6)
    together = model.encode(images)
    alone = torch.cat([model.encode(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_rows_and_particles_are_the_same_numbers():
    rows = torch.arange(2 * 3 * 9.0).view(2, 3, 9)
    particles = Particles.from_rows(rows)
    assert [x.shape[-1] for x in vars(particles).values()] == [2, 2, 1, 1, 3]
    assert torch.equal(particles.rows(), rows)


@pytest.mark.parametrize("count", [1, 7, 22, 31, 32, 33, 64])
def test_any_number_of_particles_can_be_trained(count):
    model = small_model(n_kp_enc=count)
    images = small_images()
    encoding = model(images, generator())
    assert encoding.particles.rows().shape == (2, count, 9)
    loss, metrics = objective(model, images, OBJECTIVE, MAIN, generator())
    loss.backward()
    assert all(value.isfinite() for value in metrics.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all()
        # A shift of a whole heat map changes nothing.
        assert parameter.grad.abs().sum() > 0 or name == "proposals.pyramid.key_map.bias"


@pytest.mark.parametrize("count", [0, -1, 65])
def test_impossible_numbers_of_particles_are_refused(count):
    with pytest.raises(UserError, match=f"cannot keep {count} particles .* of 64 proposals; "):
        small_model(particles=count)


# --- what agents use -------------------------------------------------------------------------


def test_encoding_runs_no_decoder_and_no_background():
    model = small_model()

    def refuse(*args):
        raise AssertionError("not needed")

    for part in (model.object_decoder, model.background_encoder, model.background_decoder):
        part.forward = refuse
    rows = model.encode(small_images())
    assert rows.shape == (2, 6, 9) and not rows.requires_grad


# --- drawing ---------------------------------------------------------------------------------


def test_draws_come_from_the_generator_alone():
    model, images = small_model(), small_images()
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(losses))
        losses.append(objective(model, images, OBJECTIVE, NOISY, generator(seed))[0].item())
    assert losses[0] == losses[1] != losses[2]


def test_draws_have_the_means_and_deviations_of_their_posteriors():
    model = small_model(particles=64)
    images = small_images(1).expand(20, -1, -1, -1)
    with torch.no_grad():
        encoding = model(images, generator())
    attributes, found = encoding.found.attributes, encoding.found
    noise = {
        "scale": (encoding.particles.scale, attributes.scale.mean, attributes.scale.logvar),
        "depth": (encoding.particles.depth, attributes.depth.mean, attributes.depth.logvar),
        "position": (
            encoding.particles.position,
            found.kept_bases + attributes.offset.mean,
            attributes.offset.logvar,
        ),
    }
    for drawn, mean, logvar in noise.values():
        standard = (drawn - mean) / torch.exp(0.5 * logvar)
        assert abs(standard.mean()) < 0.15 and abs(standard.std() - 1) < 0.1


def test_noise_needs_a_generator():
    with pytest.raises(ValueError, match="needs a generator"):
        objective(small_model(), small_images(), OBJECTIVE, NOISY, None)


# --- phases ----------------------------------------------------------------------------------


def test_phases_of_the_published_schedule():
    phases = [phase_of(epoch, warmup_epochs=1) for epoch in range(4)]
    assert phases == [NOISY_WARMUP, NOISY, MAIN, MAIN]


def gradients(phase, **weights):
    """Sum of absolute gradients of each part, None where nothing reached it."""
    model = small_model()
    settings = dataclasses.replace(OBJECTIVE, **weights)
    objective(model, small_images(), settings, phase, generator())[0].backward()

    def size(part: nn.Module):
        found = [p.grad.abs().sum().item() for p in part.parameters() if p.grad is not None]
        return sum(found) if found else None

    return {name: size(part) for name, part in model.named_children()}


def test_warmup_reconstructs_glimpses_without_moving_them():
    reached = gradients(NOISY_WARMUP, beta_kl=0.0)
    assert reached["appearance"] > 0 and reached["object_decoder"] > 0
    assert reached["background_decoder"] == 0
    assert not reached["proposals"] and not reached["attributes"]
    reached = gradients(NOISY_WARMUP)
    assert reached["proposals"] > 0 and reached["attributes"] > 0
    assert reached["background_encoder"] > 0


@pytest.mark.parametrize("phase", [NOISY_WARMUP, NOISY, MAIN])
def test_every_parameter_gets_a_gradient_in_every_phase(phase):
    model = small_model()
    objective(model, small_images(), OBJECTIVE, phase, generator())[0].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_psnr_is_that_of_what_is_reconstructed():
    model, images = small_model(), small_images()
    with torch.no_grad():
        for phase, numbers in ((MAIN, 3 * 64**2), (Phase(warmup=True, noisy=False), 3 * 16**2)):
            _, metrics = objective(model, images, OBJECTIVE, phase, None)
            expected = -10 * math.log10(metrics["rec"].item() / numbers)
            assert metrics["psnr"].item() == pytest.approx(expected, rel=1e-5)


def test_active_particles_are_counted():
    model = small_model()
    with torch.no_grad():
        for on, active in ((4.0, 6), (-4.0, 0)):  # log a over log b
            model.attributes.on.weight.zero_()
            model.attributes.on.bias.copy_(torch.tensor([on, 0.0]))
            _, metrics = objective(model, small_images(), OBJECTIVE, MAIN, None)
            assert metrics["active"] == active
            share = math.exp(on) / (math.exp(on) + 1)
            assert metrics["obj_on"].item() == pytest.approx(6 * share)


def test_the_main_phase_trains_everything_through_the_picture():
    reached = gradients(MAIN, beta_kl=0.0)
    assert all(size > 0 for size in reached.values())


def test_what_places_glimpses_learns_from_appearance_but_not_from_attributes():
    model = small_model()
    place, size = model.proposals.pyramid.key_map.weight, model.attributes.scale.weight

    def reached(value):
        found = torch.autograd.grad(value.sum(), (place, size), allow_unused=True)
        return [gradient is not None for gradient in found]

    encoding = model(small_images(), generator())
    assert reached(encoding.found.attributes.depth.mean) == [False, False]
    encoding = model(small_images(), generator())
    assert reached(encoding.features.mean) == [True, True]
    encoding = model(small_images(), generator(), Phase(warmup=True, noisy=False))
    assert reached(encoding.features.mean) == [False, False]
    assert not model(small_images(), generator()).mask.requires_grad


def test_proposals_are_not_pulled_to_the_bases():
    model = small_model()
    found = model(small_images(), generator()).found
    bases = found.bases.detach().requires_grad_()
    targets = found.proposed.positions.detach()
    (expected,) = torch.autograd.grad(chamfer_kl(bases, targets, 1.0), bases)
    _, metrics = objective(model, small_images(), OBJECTIVE, MAIN, None)
    encoding = model(small_images())
    pulled = kl_terms(encoding, model.size)["kl_base"]
    (gradient,) = torch.autograd.grad(pulled, encoding.found.proposed.positions)
    torch.testing.assert_close(gradient, expected)
    assert pulled.item() == pytest.approx(metrics["kl_base"].item())


def test_noisy_scales_ignore_the_scale_head():
    model, images = small_model(particles=64), small_images()
    with torch.no_grad():
        scales = model(images, generator(), NOISY).particles.scale
    assert scales.mean().item() == pytest.approx(model.size.anchor_logit, abs=0.1)
    assert scales.std().item() == pytest.approx(0.3, rel=0.2)


def test_a_few_updates_lower_the_loss():
    model, images = small_model(), small_images()
    adam = torch.optim.Adam(model.parameters(), lr=3e-3, eps=1e-4)
    losses = []
    for _ in range(8):
        adam.zero_grad()
        loss, _ = objective(model, images, OBJECTIVE, MAIN, None)
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


# --- settings --------------------------------------------------------------------------------


def test_initial_convolutions_are_small():
    torch.manual_seed(0)
    model = DLP(build(DLPSettings, SMALL))
    weights = torch.cat([p.flatten() for p in model.parameters() if p.dim() == 4])
    assert weights.std().item() == pytest.approx(0.01, rel=0.02)
    assert model.attributes.trunk.pyramid.key_map.bias.abs().max() == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"image_size": 96}, "image_size=96 does not fit; allowed: powers of two from 32"),
        ({"patch_size": 12}, "patch_size=12 does not fit image_size=128; allowed: multiples of 4"),
        ({"anchor_s": 0.2}, "anchor_s=0.2 makes glimpses of 25 pixels; allowed: multiples of 4"),
        ({"n_kp_enc": 65}, "n_kp_enc=65 is too large; allowed: integers of at least 1 and at most"),
        ({"n_kp_enc": 0}, "n_kp_enc=0 is too small"),
        ({"n_kp": 2}, "n_kp=2 is not known; allowed: 1"),
        ({"kp_range": [1, -1]}, "kp_range does not fit; allowed: [-1,1]"),
        ({"kp_activation": "none"}, "kp_activation=none is not known; allowed: tanh"),
        ({"bg_dec_channels": [4, 8]}, "bg_dec_channels does not fit; allowed: 3 numbers"),
        ({"enc_channels": [4, 8]}, "enc_channels does not fit; allowed: 3 numbers"),
        ({"prior_channels": [4, 8, 8]}, "prior_channels does not fit; allowed: 3 numbers"),
    ],
)
def test_settings_that_do_not_fit(changes, expected):
    with pytest.raises(SettingError) as error:
        build(DLPSettings, PUBLISHED | changes)
    assert expected in str(error.value)


def test_the_perceptual_loss_says_that_it_is_not_there():
    values = dataclasses.asdict(OBJECTIVE) | {"recon_loss_type": "vgg"}
    with pytest.raises(SettingError, match="use recon_loss_type=mse"):
        build(ObjectiveSettings, values)
