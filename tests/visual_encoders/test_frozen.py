"""Encoders as agents use them: frames in, latents out, whatever their kind."""

import pytest
import torch

from common.foundation.errors import UserError
from tests.helpers.encoder_folders import dlp_folder, load, vqvae_folder

SIZE = 64


@pytest.fixture(params=["dlp", "vqvae"])
def encoder(request, tmp_path):
    """A small encoder of either kind."""
    make = {"dlp": dlp_folder, "vqvae": lambda path: vqvae_folder(path, SIZE)}
    return load(request.param, make[request.param](tmp_path / "encoder"))


def test_views_are_encoded_alone_and_put_one_after_the_other(encoder):
    draws = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (3, 2, SIZE, SIZE, 3), dtype=torch.uint8, generator=draws)
    latents = encoder.encode(frames)
    assert latents.shape == (3, *encoder.shape(views=2)) and not latents.requires_grad
    for view, part in enumerate(latents.chunk(2, dim=1)):
        images = frames[:, view].movedim(-1, 1) / 255
        torch.testing.assert_close(part, encoder.model.encode(images), rtol=1e-4, atol=1e-5)


def test_frames_of_another_size_are_refused(encoder):
    frames = torch.zeros(1, 1, 32, SIZE, 3, dtype=torch.uint8)
    with pytest.raises(UserError, match="frames are 32 x 64 x 3 and this encoder needs 64 x 64 x"):
        encoder.encode(frames)
