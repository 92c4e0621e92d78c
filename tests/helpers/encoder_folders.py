"""Folders of small encoders for tests, and conversions in this process, which is faster."""

import math
from pathlib import Path

import torch
from torch import nn

from datasets.source import EpisodeId, EpisodeSource
from tests.helpers.dlp_models import small_model
from visual_encoders.checkpoints import save_folder
from visual_encoders.dlp.published import save
from visual_encoders.encode import EncodingRecipe
from visual_encoders.frozen import EncoderChoice, FrozenEncoder
from visual_encoders.latents import LatentStore
from visual_encoders.vqvae.model import VQVAE, VQVAESettings
from visual_encoders.vqvae.published import export


def dlp_folder(path: Path, seed: int = 0, channels: int = 3) -> Path:
    """An encoder of 64 x 64 pixels of `channels` channels with 6 particles of 9 features."""
    save(path, small_model(seed, cdim=channels))
    return path


def vqvae_folder(path: Path, size: int, seed: int = 0, channels: int = 3) -> Path:
    """An encoder of `size` x `size` pixels, `channels` each; 4 x size / 4 x size / 4 features."""
    torch.manual_seed(seed)
    network = VQVAE(
        VQVAESettings(
            embed_dim=4,
            n_embed=8,
            z_channels=32,
            base_ch=32,
            ch_mult=(1, 1, 1),
            num_res_blocks=1,
            attn_resolutions=(size // 4,),
            dropout=0.0,
            image_size=size,
            ch=channels,
        )
    )
    nn.init.normal_(network.quantize.book, std=1 / math.sqrt(4))  # far apart: all are in use
    save_folder(path, *export(network, None))
    return path


def load(kind: str, path: Path, particles: int | None = None) -> FrozenEncoder:
    """The encoder of a folder, on the CPU."""
    return EncoderChoice(kind, str(path), "cpu", particles).load()


def encode_here(
    dataset: EpisodeSource, encoder: FrozenEncoder, views: int, count: int | None = None
) -> LatentStore:
    """Encode what is missing of the first `count` episodes, without a process of its own."""
    store = LatentStore.of(dataset, encoder, views)
    missing = store.missing(len(store.lengths) if count is None else count)
    if missing:
        store.folder.mkdir(exist_ok=True)
        store.prepare()
        recipe = EncodingRecipe(dataset, encoder.choice, views, store)
        tool = recipe.make()
        try:
            for index in missing:
                list(recipe.run(tool, EpisodeId("train", index)))
        finally:
            tool.close()
    return store
