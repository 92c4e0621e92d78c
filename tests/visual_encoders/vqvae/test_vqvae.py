"""The VQ-VAE against golden vectors, its parts against independent calculations, its files."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.foundation.errors import UserError
from tests.helpers.dlp_models import golden_images, golden_value
from visual_encoders.checkpoints import load_folder, save_folder
from visual_encoders.vqvae.layers import Quantiser
from visual_encoders.vqvae.model import VQVAE, VQVAESettings
from visual_encoders.vqvae.perceptual import LPIPS, PREFIX, load_lpips
from visual_encoders.vqvae.published import load
from visual_encoders.vqvae.training import VQVAETraining, VQVAETrainingSettings

FIXTURES = Path(__file__).parents[2] / "fixtures"
NETWORK = {
    "embed_dim": 16,
    "n_embed": 2048,
    "z_channels": 128,
    "base_ch": 64,
    "ch_mult": (1, 1, 2, 2, 4),
    "num_res_blocks": 2,
    "attn_resolutions": (16,),
    "dropout": 0.0,
}
SMALL = {
    "embed_dim": 4,
    "n_embed": 8,
    "z_channels": 32,
    "base_ch": 32,
    "ch_mult": (1, 2),
    "num_res_blocks": 1,
    "attn_resolutions": (8,),
    "dropout": 0.0,
}
REFERENCE_ONLY = {"device": "cuda:0", "pretrained_path": "None"}


def small_settings(**changes) -> VQVAESettings:
    return VQVAESettings(**SMALL | {"image_size": 16, "ch": 3} | changes)


def small_training(lpips=None) -> VQVAETraining:
    torch.manual_seed(0)
    return VQVAETraining(VQVAETrainingSettings(**SMALL, epochs=1, lpips=lpips), 16)


def published_entries() -> dict[str, tuple[int, ...]]:
    lines = (FIXTURES / "vqvae_state_dict.txt").read_text().split("\n")[:-1]
    pairs = (line.split(" ") for line in lines)
    return {name: tuple(map(int, shape.split("x"))) for name, shape in pairs}


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A folder as the reference writes it, perceptual network included, with golden weights."""
    names = sorted(name for name in published_entries() if not name.startswith("loss."))
    state = {name: golden_value(i, name, published_entries()[name]) for i, name in enumerate(names)}
    torch.manual_seed(0)
    state |= {PREFIX + name: tensor for name, tensor in LPIPS().state_dict().items()}
    folder = tmp_path_factory.mktemp("published")
    training = {"lr": 2e-4, "run_name": "x"}
    hparams = NETWORK | REFERENCE_ONLY | training | {"image_size": 128, "ch": 3}
    save_folder(folder, hparams, state)
    return folder


def test_entries_are_those_of_published_checkpoints():
    with torch.device("meta"):
        network, lpips = VQVAE(VQVAESettings(**NETWORK, image_size=128, ch=3)), LPIPS()
    found = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    perceptual = {PREFIX + name: tuple(t.shape) for name, t in lpips.state_dict().items()}
    assert found | perceptual == published_entries()
    assert (len(found), len(perceptual)) == (343, 33)
    assert sum(p.numel() for p in network.parameters()) == 17_008_211
    assert sum(p.numel() for p in lpips.parameters()) == 14_716_160
    assert not any(p.requires_grad for p in lpips.parameters())


def test_golden_vectors(published):
    golden = np.load(FIXTURES / "vqvae_golden.npz")
    network = load(published)
    images = golden_images()
    codes = network.quantise(images)
    assert np.array_equal(codes.indices.flatten(), golden["indices"])
    assert np.allclose(codes.latent, golden["latent"], atol=1e-4)
    assert np.allclose(codes.loss, golden["codebook_loss"], atol=1e-4)
    decoded = network.decode(codes.latent)
    assert np.allclose(decoded[:, :, ::4, ::4], golden["rec"], atol=1e-4)
    features = network.encode(images[:1])
    assert features.shape == (1, 1024)
    assert torch.allclose(features, codes.latent[:1].flatten(1), atol=1e-5)


def test_a_published_folder_loads_frozen_and_without_its_perceptual_network(published):
    network = load(published)
    assert not network.training
    assert not any(p.requires_grad or p.is_meta for p in network.parameters())
    assert not any(name.startswith("loss") for name in network.state_dict())


def test_an_exported_folder_loads_here_and_has_what_the_reference_reads(tmp_path):
    model = small_training()
    save_folder(tmp_path, *model.export())
    loaded = load(tmp_path).state_dict()
    own = model.network.state_dict()
    assert loaded.keys() == own.keys() and all(torch.equal(own[n], loaded[n]) for n in own)
    hparams = json.loads((tmp_path / "hparams.json").read_text())
    assert hparams.keys() == SMALL.keys() | REFERENCE_ONLY.keys() | {"image_size", "ch", "checksum"}
    with pytest.raises(UserError, match="has no perceptual network; give a published"):
        load_lpips(tmp_path)


def test_an_export_carries_the_perceptual_network_it_was_trained_with(published, tmp_path):
    model = small_training(lpips=str(published))
    save_folder(tmp_path, *model.export())
    _, state = load_folder(tmp_path)
    assert {name for name in state if name.startswith("loss.")} == {
        name for name in published_entries() if name.startswith("loss.")
    }
    load(tmp_path)


def test_weights_of_another_network_are_one_line(published, tmp_path):
    hparams, state = load_folder(published)
    save_folder(tmp_path, hparams | {"base_ch": 32}, state)
    with pytest.raises(UserError, match=r"has shape .* does not belong to"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_ch": 48}, "base_ch=48 is not a multiple of 32"),
        ({"image_size": 15}, "image_size=15 cannot be halved 1 times"),
        ({"ch_mult": ()}, "cannot be halved"),
    ],
)
def test_sizes_that_do_not_fit(changes, message):
    with pytest.raises(UserError, match=message):
        VQVAE(small_settings(**changes))


def test_nearest_code_and_loss_by_hand():
    torch.manual_seed(0)
    quantiser = Quantiser(5, 3)
    assert quantiser.book.abs().max() <= 1 / 5
    z = torch.randn(2, 3, 4, 4)
    codes = quantiser(z)
    book = quantiser.book
    for b, y, x in np.ndindex(2, 4, 4):
        distances = [float((z[b, :, y, x] - e).square().sum()) for e in book.detach()]
        assert int(codes.indices[b, y, x]) == int(np.argmin(distances))
    chosen = book[codes.indices].movedim(-1, 1)
    assert torch.allclose(codes.latent, chosen, atol=1e-6)
    assert torch.allclose(codes.loss, 1.25 * (z - chosen).square().mean())


def test_gradients_pass_the_codebook_straight_through():
    torch.manual_seed(0)
    quantiser = Quantiser(5, 3)
    z = torch.randn(2, 3, 4, 4, requires_grad=True)
    weights = torch.randn(2, 3, 4, 4)
    codes = quantiser(z)
    (gradient,) = torch.autograd.grad((codes.latent * weights).sum(), z, retain_graph=True)
    assert torch.equal(gradient, weights)
    # The loss draws latents to codes with a quarter of the weight with which codes follow.
    (pull,) = torch.autograd.grad(codes.loss, z, retain_graph=True)
    (follow,) = torch.autograd.grad(codes.loss, quantiser.book)
    used = F.one_hot(codes.indices, 5).movedim(-1, 1).float()
    summed = torch.einsum("bkhw,bchw->kc", used, pull)
    assert torch.allclose(follow, -4 * summed, atol=1e-6)


def test_pictures_of_generated_features_stay_in_range():
    torch.manual_seed(0)
    network = VQVAE(small_settings())
    features = 100 * torch.randn(2, 4 * 8 * 8)
    with torch.no_grad():
        torch.nn.init.constant_(network.decoder.conv_out.bias, 5.0)
        pictures = network.images(features)
        assert torch.equal(pictures, network.images(features.clamp(-1, 1)))
    assert pictures.shape == (2, 3, 16, 16)
    assert pictures.min() >= 0 and pictures.max() == 1


def lpips_by_hand(net: LPIPS, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """LPIPS written out with functional calls on the entries of a checkpoint."""
    state = net.state_dict()
    convolutions = [[0, 2], [5, 7], [10, 12, 14], [17, 19, 21], [24, 26, 28]]
    total = torch.zeros(len(x))
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    pair = [(image - shift) / scale for image in (x, y)]
    for i, numbers in enumerate(convolutions):
        if i:
            pair = [F.max_pool2d(h, 2, 2) for h in pair]
        for n in numbers:
            names = [f"net.slice{i + 1}.{n}.{kind}" for kind in ("weight", "bias")]
            pair = [F.relu(F.conv2d(h, *(state[m] for m in names), padding=1)) for h in pair]
        a, b = (h / (h.square().sum(1, keepdim=True).sqrt() + 1e-10) for h in pair)
        weights = state[f"lin{i}.model.1.weight"][0]
        total += ((a - b).square() * weights).sum(1).mean((1, 2))
    return total


def test_perceptual_distance_by_hand():
    torch.manual_seed(0)
    net = LPIPS()
    x, y = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    assert torch.allclose(net(x, y), lpips_by_hand(net, x, y), rtol=1e-4)
    assert net(x, x).abs().max() == 0
    assert torch.equal(net.train()(x, y), net.eval()(x, y))  # no dropout while training


def test_training_loss_is_the_sum_of_its_parts(published):
    images, generator = torch.rand(2, 3, 16, 16), torch.Generator()
    plain, full = small_training(), small_training(lpips=str(published))
    assert "lpips=null" in plain.remarks[0] and full.remarks == ()
    loss, metrics = full(images, 0, generator)
    codes = full.network.quantise(images)
    decoded, target = full.network.decode(codes.latent), 2 * images - 1
    perceptual = full.lpips(target, decoded).mean()
    expected = (target - decoded).abs().mean() + perceptual + codes.loss
    assert torch.allclose(loss, expected)
    assert torch.allclose(loss - perceptual, plain(images, 0, generator)[0])
    assert set(metrics) == {"loss", "l1", "lpips", "codebook", "psnr", "usage"}
    assert not any(value.requires_grad for value in metrics.values())


def test_every_parameter_learns():
    model = small_training()
    model(torch.rand(2, 3, 16, 16), 0, torch.Generator())[0].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_codebook_use_is_counted_over_batches():
    model = small_training()
    usage = model._usage(torch.tensor([[[0, 1], [1, 1]]]))
    assert usage.tolist() == [0.25, 0.75, 0, 0, 0, 0, 0, 0]
    other = model._usage(torch.tensor([[[2, 2], [2, 2]]]))
    figures = model.figures({"usage": (usage + other) / 2, "loss": torch.tensor(3.0)})
    assert figures["loss"] == 3.0 and figures["codes_used"] == 3
    p = np.array([0.125, 0.375, 0.5])
    assert figures["perplexity"] == pytest.approx(math.exp(-(p * np.log(p)).sum()))
    even = model.figures({"usage": torch.full((8,), 1 / 8)})
    assert (even["codes_used"], even["perplexity"]) == (8, pytest.approx(8))


def test_pictures_are_images_and_reconstructions():
    model = small_training().eval()
    images = torch.rand(2, 3, 16, 16)
    pictures = model.pictures(images)
    assert list(pictures) == ["image", "reconstruction"]
    assert torch.equal(pictures["image"], images)
    expected = model.network.images(model.network.encode(images))
    assert torch.allclose(pictures["reconstruction"], expected)
