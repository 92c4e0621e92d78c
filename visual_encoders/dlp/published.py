"""Published DLP checkpoints: names of their entries, reading and writing them.

Names of entries carry channel counts and sizes of feature maps, so they depend on the settings.
"""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from common.foundation.errors import UserError
from visual_encoders.checkpoints import load_folder, read_settings, save_folder, select_entries
from visual_encoders.dlp.encoders import ConvBlock, Particles
from visual_encoders.dlp.model import DLP
from visual_encoders.dlp.pictures import draw_particles
from visual_encoders.dlp.settings import EXPLICIT, PUBLISHED_DECODERS, DLPSettings
from visual_encoders.frozen import EncoderChoice, FrozenEncoder, to_bytes


class FrozenDLP(FrozenEncoder):
    """Particles of all views: the first K rows of view 1 and so on, D = 6 + appearance."""

    own_key = "n_kp_enc"
    explicit = EXPLICIT

    def __init__(self, choice: EncoderChoice) -> None:
        super().__init__(choice)
        model = load(choice.path, self.device, choice.particles)
        self.model = model.eval().requires_grad_(False)
        size = self.model.size
        self.frame = (size.image_size, size.image_size, size.cdim)
        self.setup = {"particles": self.model.particles}

    def shape(self, views: int) -> tuple[int, int]:
        features = EXPLICIT + self.model.size.learned_feature_dim
        return views * self.model.particles, features

    @torch.no_grad()
    def decode(self, latents: Tensor, frames: Tensor) -> Tensor:
        """Objects over the background of `frames`, a dot on each particle; see the base class.

        The background's code is its posterior's mean (the reference draws from the posterior).
        """
        views = frames.shape[1]
        rows = latents.to(self.device).unflatten(1, (views, -1)).flatten(0, 1).clone()
        rows[..., EXPLICIT - 1].clamp_(0, 1)  # generated transparencies may leave their range
        particles = Particles.from_rows(rows)
        code = self.model(self.images(frames)).background_code
        picture = self.model.decode(particles, code).image
        return to_bytes(draw_particles(picture, particles), views)


# The object decoder's convolutions stand in a file under both names, with equal contents.
DECODER, DECODER_TWIN = "fg_module.object_dec.main.", "fg_module.object_dec.decode."


def load(
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    particles: int | None = None,
) -> DLP:
    """Read the folder `path` (`hparams.json`, `best.pth`) onto `device`.

    Args:
        particles: how many to keep, instead of as many as in training.

    Raises `UserError` for a folder that is not complete, damaged or not of a DLP.
    """
    hparams, state = load_folder(path)
    model = DLP(read_settings(DLPSettings, PUBLISHED_DECODERS | hparams, path), particles)
    names = published_names(model)
    expected = {names[own]: tensor for own, tensor in model.state_dict().items()}
    entries = select_entries(_one_decoder(state, path), expected, prior_entries(model.size), path)
    model.load_state_dict({own: entries[name] for own, name in names.items()})
    return model.to(device)


def save(path: str | os.PathLike[str], model: DLP) -> None:
    """Write `model` as the folder `path`, with everything that the reference's loader asks for."""
    save_folder(path, *export(model))


def export(model: DLP) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Content of a checkpoint folder: hyperparameters (ready for JSON) and weights."""
    own = model.state_dict()
    state = prior_entries(model.size)
    state |= {name: own[key] for key, name in published_names(model).items()}
    twins = {k.replace(DECODER, DECODER_TWIN): v for k, v in state.items() if DECODER in k}
    return dataclasses.asdict(model.size), state | twins


def prior_entries(size: DLPSettings) -> dict[str, Tensor]:
    """Constants of the KL terms, which a file holds too; on reading the settings decide."""
    return {
        "logvar_kp": torch.tensor(2 * math.log(size.sigma)),
        "mu_scale_prior": torch.tensor(size.scale_prior_mean, dtype=torch.float64),
        "logvar_scale_p": torch.tensor(2 * math.log(size.scale_std)),
        "logvar_offset_p": torch.tensor(2 * math.log(size.offset_std)),
        "obj_on_a_p": torch.tensor(size.obj_on_alpha),
        "obj_on_b_p": torch.tensor(size.obj_on_beta),
    }


def published_names(model: DLP) -> dict[str, str]:
    """For each entry of `model.state_dict()` its name in a published file."""
    prefixes = _prefixes(model.size)
    modules = dict(model.named_modules())
    names = {}
    for own in model.state_dict():
        module, _, entry = own.rpartition(".")
        parent, _, part = module.rpartition(".")
        block = modules[parent]
        if isinstance(block, ConvBlock):
            names[own] = f"{prefixes[parent]}.main.{_block_entry(block, part)}.{entry}"
        else:
            names[own] = f"{prefixes.get(module) or f'{prefixes[parent]}.{part}'}.{entry}"
    return names


def _block_entry(block: ConvBlock, part: str) -> str:
    """The published name of a block's convolution or norm (spelt `grouupnorm` in the files)."""
    if part == "norm":
        return f"grouupnorm_{block.conv.out_channels}"
    return f"conv_{block.conv.in_channels}_to_{block.conv.out_channels}"


def _prefixes(size: DLPSettings) -> dict[str, str]:
    """Published names of modules: convolution blocks, sequences of Linears and lone layers."""
    fg, bg, image = "fg_module", "bg_module", size.image_size
    channels = size.prior_channels
    names = _pyramid("proposals", f"{fg}.prior.enc", channels, size.patch_size)
    for own, theirs in (
        ("attributes", "particle_att_enc"),
        ("appearance", "particle_features_enc"),
    ):
        prefix = f"{fg}.{theirs}"
        names |= _pyramid(f"{own}.trunk", f"{prefix}.cnn", channels, size.glimpse_size)
        names[f"{own}.trunk.projection"] = f"{prefix}.projection"
        names[f"{own}.trunk.backbone"] = f"{prefix}.backbone"
    heads = {"row": "x", "column": "y", "scale": "scale_xy", "on": "obj_on", "depth": "depth"}
    names |= {f"attributes.{k}": f"{fg}.particle_att_enc.{v}_head" for k, v in heads.items()}
    names["appearance.features"] = f"{fg}.particle_features_enc.features_head"
    names["object_decoder.seed"] = f"{fg}.object_dec.fc"
    names |= _decoder("object_decoder", DECODER, ("depth_up", "conv_to_16", "conv_to_32"))
    last = f"final_conv.main.conv_{size.obj_dec_channels[-1]}_to_{1 + size.cdim}"
    names["object_decoder.out"] = f"{DECODER}{last}"
    names |= _pyramid("background_encoder", f"{bg}.bg_cnn_enc", size.enc_channels, image)
    names["background_encoder.hidden"] = f"{bg}.bg_enc"
    names["background_encoder.code"] = f"{bg}.bg_enc.4"
    names["background_decoder.seed"] = f"{bg}.latent_to_feat_map.mlp"
    grow = f"{bg}.latent_to_feat_map.cnn.depth_up"
    names |= {f"background_decoder.grow.{i}": f"{grow}_{i}" for i in range(image.bit_length())}
    names |= _decoder(
        "background_decoder", f"{bg}.dec.main.", ("depth_up", "conv_to_8", "conv_to_16")
    )
    last = f"final_conv.main.conv_{size.bg_dec_channels[-1]}_to_{size.cdim}"
    names["background_decoder.out"] = f"{bg}.dec.{last}"
    return names


def _pyramid(own: str, theirs: str, channels: tuple[int, ...], side: int) -> dict[str, str]:
    """A `Pyramid` on images of `side` pixels, in the module `own`."""
    blocks = ("in_block_1", "in_block_2", f"conv_in_{side}_0", f"conv_in_{channels[1]}_1")
    blocks += (f"conv_in_{side // 2}_0", f"conv_in_{channels[2]}_1")
    names = {f"{own}.pyramid.blocks.{i}": f"{theirs}.main.{b}" for i, b in enumerate(blocks)}
    return names | {f"{own}.pyramid.key_map": f"{theirs}.keymap"}


def _decoder(own: str, theirs: str, blocks: tuple[str, ...]) -> dict[str, str]:
    return {f"{own}.blocks.{i}": f"{theirs}{block}" for i, block in enumerate(blocks)}


def _one_decoder(state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Entries with the object decoder under its first name only, whichever the file has."""
    single = {}
    for name, tensor in state.items():
        first = name.replace(DECODER_TWIN, DECODER)
        if first != name and first in state and not torch.equal(state[first], tensor):
            raise UserError(
                f"{path}: {name} and {first} differ but should be one; use another file"
            )
        single[first] = tensor
    return single
