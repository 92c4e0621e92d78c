"""DLP against vectors computed with the reference: particles, pictures, every term of the loss."""

import pytest
import torch

from tests.helpers.dlp_models import (
    OBJECTIVE,
    golden_images,
    golden_model,
    golden_vectors,
    published_entries,
)
from visual_encoders.dlp.losses import objective
from visual_encoders.dlp.model import MAIN, Phase

CLOSE = {"rtol": 0, "atol": 1e-4}
ROUNDING = {"rtol": 0, "atol": 1e-5}
LOSS_CLOSE = {"rtol": 1e-6, "atol": 1e-4}  # float32 has seven digits


@pytest.fixture(scope="module")
def model():
    return golden_model(20)


@pytest.fixture(scope="module")
def golden():
    return golden_vectors()


@pytest.fixture(scope="module")
def encoding(model):
    with torch.no_grad():
        return model(golden_images())


def as_sets(rows):
    """Rows (B, K, D) in an order that is theirs alone: scores may tie within rounding."""
    return torch.stack([image[image[:, 0].argsort()] for image in rows])


def test_particles_are_those_of_the_reference(model, golden):
    rows = model.encode(golden_images())
    assert rows.shape == (2, 20, 14)
    torch.testing.assert_close(as_sets(rows), as_sets(golden["rep"]), **CLOSE)


def test_encode_gives_what_the_whole_forward_pass_gives(model, encoding):
    """Up to rounding: on CPU it encodes the images one by one, here they went in together."""
    rows = model.encode(golden_images())
    torch.testing.assert_close(as_sets(rows), as_sets(encoding.particles.rows()), **ROUNDING)


def test_parts_of_the_forward_pass(encoding, golden):
    found = encoding.found
    torch.testing.assert_close(found.proposed.positions, golden["kp_prior"], **CLOSE)
    torch.testing.assert_close(found.proposed.spread, golden["var_prior"], **CLOSE)
    torch.testing.assert_close(found.bases, golden["mu_firstpass"], **CLOSE)
    parameters = torch.cat([encoding.particles.position, found.attributes.on.a], dim=-1)
    expected = torch.cat([golden["rep"][..., :2], golden["obj_a"].unsqueeze(-1)], dim=-1)
    torch.testing.assert_close(as_sets(parameters), as_sets(expected), **CLOSE)
    parameters = torch.cat([encoding.particles.position, found.attributes.on.b], dim=-1)
    expected = torch.cat([golden["rep"][..., :2], golden["obj_b"].unsqueeze(-1)], dim=-1)
    torch.testing.assert_close(as_sets(parameters), as_sets(expected), **CLOSE)


def test_glimpses(encoding, golden):
    """The first two glimpses of an image, found among all: their order may differ by rounding."""
    for glimpses, expected in zip(encoding.glimpses, golden["glimpse0"], strict=True):
        distance = (glimpses[:, None] - expected).abs().amax(dim=(2, 3, 4))
        assert distance.amin(dim=0).max() < 1e-4


def test_background(encoding, golden):
    torch.testing.assert_close(encoding.background_code, golden["z_bg"], **CLOSE)
    torch.testing.assert_close(encoding.mask[..., ::4, ::4], golden["bg_mask"], **CLOSE)


def test_picture(model, encoding, golden):
    with torch.no_grad():
        picture = model.decode(encoding.particles, encoding.background_code)
    torch.testing.assert_close(picture.image[..., ::4, ::4], golden["rec"], **CLOSE)


@pytest.mark.parametrize(
    ("phase", "prefix"), [(MAIN, "loss_"), (Phase(warmup=True, noisy=False), "warmloss_")]
)
def test_every_term_of_the_loss(model, golden, phase, prefix):
    with torch.no_grad():
        loss, metrics = objective(model, golden_images(), OBJECTIVE, phase, None)
    ours = {
        "loss": loss,
        "kl": metrics["kl"],
        "loss_rec": metrics["rec"],
        "obj_on_l1": metrics["obj_on"],
        "loss_kl_kp": metrics["kl_base"] + metrics["kl_offset"],
        "loss_kl_feat": metrics["kl_features"] + metrics["kl_background"],
        "loss_kl_obj_on": metrics["kl_on"],
        "loss_kl_scale": metrics["kl_scale"],
        "loss_kl_depth": metrics["kl_depth"],
    }
    if not phase.warmup:  # the reference logs 0 in warm-up
        ours["psnr"] = metrics["psnr"]
    for name, value in ours.items():
        torch.testing.assert_close(value, golden[prefix + name], **LOSS_CLOSE)


def test_24_particles():
    model = golden_model(24)
    assert sum(p.numel() for p in model.parameters()) == 9_194_798
    with torch.no_grad():
        loss, _ = objective(model, golden_images(), OBJECTIVE, MAIN, None)
    assert loss.item() == pytest.approx(3861.085, abs=1e-3)


def test_parameter_counts(model):
    def count(*parts):
        return sum(p.numel() for part in parts for p in part.parameters())

    assert count(model) == 8_006_586
    assert count(model.proposals) == 72_369
    assert count(model.attributes) == 404_124
    assert count(model.appearance) == 404_640
    assert count(model.object_decoder) == 602_820
    encoder, decoder = model.background_encoder, model.background_decoder
    assert count(encoder.pyramid) == 293_876
    assert count(encoder.hidden, encoder.code) == 5_276_290
    assert count(decoder.seed, decoder.grow) == 836_976
    assert count(decoder.blocks, decoder.out) == 115_491


def test_the_fixture_lists_all_entries():
    assert len(published_entries(20)) == len(published_entries(24)) == 167
