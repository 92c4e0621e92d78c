"""Published DLP folders: entries, import under either family of names, export, error lines."""

import json

import pytest
import torch

from common.settings.schema import build
from tests.helpers.crashes import refusal
from tests.helpers.dlp_models import PUBLISHED, SMALL, published_entries, small_images, small_model
from visual_encoders.checkpoints import load_folder, save_folder
from visual_encoders.dlp.model import DLP
from visual_encoders.dlp.published import export, load, save
from visual_encoders.dlp.settings import PUBLISHED_DECODERS, DLPSettings

MAIN, TWIN = "fg_module.object_dec.main.", "fg_module.object_dec.decode."


@pytest.fixture(scope="module")
def model():
    return small_model(seed=3)


@pytest.fixture
def folder(model, tmp_path):
    hparams, state = export(model)
    save_folder(tmp_path / "encoder", {"run_name": "test", **hparams, "lr": 0.0002}, state)
    return tmp_path / "encoder"


def rewrite(folder, change):
    hparams, state = load_folder(folder)
    save_folder(folder, hparams, change(dict(state)))


@pytest.mark.parametrize("particles", [20, 24])
def test_exported_entries_are_those_of_the_published_files(particles, tmp_path):
    save(tmp_path, DLP(build(DLPSettings, PUBLISHED | {"n_kp_enc": particles})))
    hparams, state = load_folder(tmp_path)
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}
    assert found == published_entries(particles)
    assert hparams == PUBLISHED | {"n_kp_enc": particles}
    constants = {k: tensor.item() for k, tensor in state.items() if tensor.dim() == 0}
    assert constants == pytest.approx(
        {
            "logvar_kp": 0,
            "mu_scale_prior": -1.466349,
            "logvar_scale_p": -2.407946,
            "logvar_offset_p": -3.218876,
            "obj_on_a_p": 0.1,
            "obj_on_b_p": 0.1,
        },
        abs=1e-6,
    )


def test_an_exported_encoder_comes_back_to_the_bit(model, folder):
    loaded = load(folder)
    images = small_images()
    assert torch.equal(loaded.encode(images), model.encode(images))
    assert loaded.size == model.size
    state = model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("lacking", [MAIN, TWIN])
def test_one_family_of_names_is_enough(model, folder, lacking):
    rewrite(folder, lambda state: {k: v for k, v in state.items() if not k.startswith(lacking)})
    particles = torch.rand(1, 6, 3, generator=torch.Generator().manual_seed(0))
    decoded = load(folder).object_decoder(particles)
    assert torch.equal(decoded, model.object_decoder(particles))


def test_two_families_that_differ_are_refused(folder):
    name = f"{TWIN}depth_up.main.grouupnorm_64.bias"
    rewrite(folder, lambda state: state | {name: state[name] + 1})
    assert f"{name} and {MAIN}depth_up" in refusal(load, folder)


def test_constants_of_the_loss_may_be_missing(model, folder):
    rewrite(folder, lambda state: {k: v for k, v in state.items() if v.dim() > 0})
    assert load(folder).size == model.size


def test_published_files_do_not_tell_the_widths_of_the_decoders(model, folder):
    hparams, state = load_folder(folder)
    told = {name: hparams.pop(name) for name in PUBLISHED_DECODERS}
    assert told == PUBLISHED_DECODERS
    save_folder(folder, hparams, state)
    assert load(folder).size == model.size


def test_decoders_of_other_widths_come_back(tmp_path):
    model = small_model(obj_dec_channels=[8, 4, 6], bg_dec_channels=[5, 7, 7])
    save(tmp_path, model)
    state = model.state_dict()
    loaded = load(tmp_path).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())
    assert loaded["object_decoder.out.weight"].shape == (4, 6, 1, 1)
    assert loaded["background_decoder.blocks.1.conv.weight"].shape == (7, 5, 3, 3)


def test_more_particles_after_training(model, folder):
    images = small_images()
    more = load(folder, particles=11)
    assert more.encode(images).shape == (2, 11, 9)
    torch.testing.assert_close(more.encode(images)[:, :6], model.encode(images))
    with torch.no_grad():
        encoding = more(images)
        picture = more.decode(encoding.particles, encoding.background_code)
    assert picture.masks.shape == (2, 11, 64, 64)
    assert "keep 65 particles (dlp_post_training_num_kp) of 64" in refusal(
        load, folder, particles=65
    )


def test_onto_a_device(folder):
    assert all(p.device.type == "meta" for p in load(folder, "meta").parameters())


def test_an_unknown_entry(folder):
    rewrite(folder, lambda state: state | {"fg_module.new.weight": torch.zeros(1)})
    message = refusal(load, folder)
    assert "best.pth has the unknown entry fg_module.new.weight; it does not belong to" in message


def test_a_missing_entry(folder):
    lost = "fg_module.prior.enc.keymap.bias"
    rewrite(folder, lambda state: {k: v for k, v in state.items() if k != lost})
    assert f"best.pth lacks {lost};" in refusal(load, folder)


def test_hyperparameters_of_another_encoder(folder):
    hparams = SMALL | {"learned_feature_dim": 4}
    (folder / "hparams.json").write_text(json.dumps(hparams))
    message = refusal(load, folder)
    assert "features_head.weight has shape (6, 128) instead of (8, 128)" in message
    (folder / "hparams.json").write_text(json.dumps(SMALL | {"n_kp_enc": 9}))
    assert "best.pth lacks bg_module" in refusal(load, folder)


def test_missing_and_wrong_hyperparameters(folder):
    (folder / "hparams.json").write_text(json.dumps({k: SMALL[k] for k in list(SMALL)[1:]}))
    assert "hparams.json lacks image_size;" in refusal(load, folder)
    (folder / "hparams.json").write_text(json.dumps(SMALL | {"n_kp_enc": "many"}))
    assert "hparams.json: n_kp_enc=many is not an integer" in refusal(load, folder)
