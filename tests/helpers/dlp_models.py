"""DLP networks for the tests: the published size, a small one, weights of the golden vectors."""

import ast
from pathlib import Path

import numpy as np
import torch

from common.settings.schema import build
from visual_encoders.dlp.losses import ObjectiveSettings
from visual_encoders.dlp.model import DLP
from visual_encoders.dlp.published import published_names
from visual_encoders.dlp.settings import DLPSettings

FIXTURES = Path(__file__).parents[1] / "fixtures"
PUBLISHED = {
    "image_size": 128,
    "cdim": 3,
    "patch_size": 16,
    "n_kp": 1,
    "n_kp_enc": 20,
    "n_kp_prior": 32,
    "learned_feature_dim": 8,
    "bg_learned_feature_dim": 1,
    "prior_channels": [16, 32, 64],
    "enc_channels": [32, 64, 128],
    "obj_dec_channels": [64, 64, 32],
    "bg_dec_channels": [128, 64, 32],
    "pad_mode": "replicate",
    "kp_range": [-1, 1],
    "kp_activation": "tanh",
    "anchor_s": 0.25,
    "sigma": 1.0,
    "scale_std": 0.3,
    "offset_std": 0.2,
    "obj_on_alpha": 0.1,
    "obj_on_beta": 0.1,
}
SMALL = PUBLISHED | {
    "image_size": 64,
    "patch_size": 8,  # 64 proposals, as in the published size
    "n_kp_enc": 6,
    "learned_feature_dim": 3,
    "bg_learned_feature_dim": 2,
    "prior_channels": [4, 8, 12],
    "enc_channels": [4, 8, 12],
}
OBJECTIVE = ObjectiveSettings(1.0, 0.1, 0.001, "mse", 1)


def small_model(seed: int = 0, particles: int | None = None, **changes) -> DLP:
    """A small network with weights of the usual size, so that every output differs."""
    torch.manual_seed(seed)
    model = DLP(build(DLPSettings, SMALL | changes), particles)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=weight[0].numel() ** -0.5)
    return model


def small_images(count: int = 2, seed: int = 0) -> torch.Tensor:
    """Smooth random pictures (count, 3, 64, 64)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 9, 9, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=64, mode="bilinear", align_corners=True)


def golden_model(particles: int) -> DLP:
    """The published size with weights that depend on the sorted published names alone."""
    model = DLP(build(DLPSettings, PUBLISHED | {"n_kp_enc": particles}))
    state = model.state_dict()
    own = {published: name for name, published in published_names(model).items()}
    for i, published in enumerate(sorted(own)):
        state[own[published]] = golden_value(i, published, tuple(state[own[published]].shape))
    model.load_state_dict(state)
    return model


def golden_value(index: int, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Weights of the golden vectors, a function of the entry's place, name and shape."""
    draw = np.random.RandomState(1000 + index).standard_normal(shape)
    if len(shape) == 2 and "quantize" not in name:
        draw *= 0.4 / np.sqrt(shape[1])
    elif len(shape) >= 2:
        draw /= np.sqrt(np.prod(shape[1:]))
    else:
        draw = 0.1 * draw + float(name.endswith(".weight"))
    return torch.from_numpy(draw.astype(np.float32))


def golden_images() -> torch.Tensor:
    """The two images of the golden vectors: (2, 3, 128, 128)."""
    b, c, h, w = np.meshgrid(*(np.arange(n) for n in (2, 3, 128, 128)), indexing="ij")
    vertical = 0.25 * np.sin(0.11 * h * (1 + 0.3 * b) + 0.5 * c)
    horizontal = 0.25 * np.sin(0.07 * w * (1 + 0.5 * c) + 0.002 * h * w)
    return torch.from_numpy((0.5 + vertical + horizontal).astype(np.float32))


def golden_vectors() -> dict[str, torch.Tensor]:
    """Output of the reference for the golden weights with 20 particles and the golden images."""
    with np.load(FIXTURES / "dlp_golden.npz") as vectors:
        return {name: torch.from_numpy(np.asarray(vectors[name])) for name in vectors}


def published_entries(particles: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Names, shapes and types of a published file with 20 or 24 particles."""
    sections = (FIXTURES / "dlp_entries.txt").read_text().split("# ")[1:]
    of_20, changed = ([line.split() for line in s.splitlines()[1:]] for s in sections)
    entries = {name: _described(shape, kind) for name, shape, kind in of_20}
    if particles == 24:
        renamed = {name.replace("24", "20") for name, _, _ in changed}
        entries = {name: entry for name, entry in entries.items() if name not in renamed}
        entries |= {name: _described(shape, kind) for name, shape, kind in changed}
    return entries


def _described(shape: str, kind: str) -> tuple[tuple[int, ...], torch.dtype]:
    sizes = ast.literal_eval(shape)
    return (sizes if isinstance(sizes, tuple) else (sizes,)), getattr(torch, kind)
