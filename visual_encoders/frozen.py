"""Trained encoders as agents use them: read from a folder, applied to camera frames.

Letters: B rows, V views of S x S pixels with C channels, *shape of one row's latents.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from common.foundation.device import resolve_device
from common.foundation.errors import UserError
from common.foundation.files import read_json
from common.foundation.registry import FROZEN, lookup
from common.settings.config import Config
from visual_encoders.base import to_float
from visual_encoders.checkpoints import HPARAMS, fingerprint
from visual_encoders.download_chkpts import NAMES, ORIGINS

KEY = "rep_model_checkpoint"

# Images that are encoded at once. On CPU one: a result must not depend, in its last bits, on what
# else is encoded, and more at once are no faster (measured on one core: DLP 38 ms an image, 54 for
# four at once, whose glimpses do not stay in the caches; VQ-VAE 56 ms, 60 for two at once, 83 for
# 16). On other devices it only bounds the memory.
CPU_IMAGES, GPU_IMAGES = 1, 128


@dataclass(frozen=True)
class EncoderChoice:
    """The encoder that the settings name; picklable.

    Attributes:
        kind: a name in `FROZEN`; `obs`. path: `rep_model_checkpoint`. device: `rep_model_device`.
        particles: how many of an image, of encoders that make particles (`None`: as in training).
    """

    kind: str
    path: str | None = None
    device: str = "auto"
    particles: int | None = None

    @classmethod
    def of(cls, config: Config) -> "EncoderChoice":
        """The choice of these settings."""
        count = config.dlp_post_training_num_kp
        particles = None if count == -1 else count
        return cls(config.obs, config.rep_model_checkpoint, config.rep_model_device, particles)

    def load(self) -> "FrozenEncoder":
        """Read it. Raises `UserError` if there is none, or it is damaged or of another kind."""
        cls = lookup(FROZEN, self.kind, "obs")
        if self.path is None:
            get = _how_to_get(self.kind)
            raise UserError(f"obs={self.kind} needs an encoder: set {KEY}=FOLDER; {get}")
        path = Path(self.path)
        if not path.is_dir():
            raise UserError(f"no encoder at {KEY}={path}; {_how_to_get(self.kind, path.name)}")
        _check_kind(path, self.kind)
        try:
            return cls(self)
        except (RuntimeError, MemoryError) as error:  # sizes that no memory holds, for example
            raise UserError(f"{KEY}={path} cannot be built: {error!s:.200}") from error


class FrozenEncoder(ABC):
    """An encoder that was read from a folder; it learns no more.

    Attributes:
        choice, device, model: which one, where it computes, and its network.
        fingerprint: of its files, see `checkpoints.fingerprint`.
        frame: (S, S, C) of the frames it was trained on.
        explicit: leading features of a particle that have a meaning each; 0 where there are none.
        setup: what besides its files decides its latents, ready for JSON.
    """

    own_key: ClassVar[str]  # of hyperparameters: no other kind of encoder has it
    explicit: ClassVar[int] = 0
    model: nn.Module
    frame: tuple[int, int, int]
    setup: dict[str, int]

    def __init__(self, choice: EncoderChoice) -> None:
        self.choice = choice
        self.device = resolve_device(choice.device, "rep_model_device")
        self.fingerprint = fingerprint(choice.path)

    def check_origin(self, environment: str, views: int) -> None:
        """Raise `UserError` if it was trained on another environment, or another number of views.

        Ours say it in their hyperparameters, the published ones by their names; of others it is not
        known.
        """
        path = Path(self.choice.path)
        origin = ORIGINS.get(path.name, {}) | read_json(path / HPARAMS)
        if origin.get("environment", environment) != environment:
            raise UserError(
                f"{KEY}={path} was trained on images of {origin['environment']}, the task is "
                f"{environment}; give an encoder of that task"
            )
        if origin.get("views", views) != views:
            raise UserError(
                f"{KEY}={path} was trained on {origin['views']} views of an environment, the "
                f"settings have {views}; set multiview={str(views == 1).lower()}, or give another "
                "encoder"
            )

    @abstractmethod
    def shape(self, views: int) -> tuple[int, ...]:
        """Of the latents of one row: (N, D) of particles, the views' one after another, or (F,)."""

    def encode(self, frames: Tensor) -> Tensor:
        """Frames (B, V, S, S, C) uint8 -> latents (B, *shape) float32, on the encoder's device.

        Each view is encoded alone; the latents of the first view come first. Raises `UserError` for
        frames of another size than the encoder was trained on.
        """
        if tuple(frames.shape[2:]) != self.frame:
            found, wanted = (" x ".join(map(str, s)) for s in (frames.shape[2:], self.frame))
            raise UserError(f"frames are {found} and this encoder needs {wanted}; render that size")
        parts = self.images(frames).split(CPU_IMAGES if self.device.type == "cpu" else GPU_IMAGES)
        latents = torch.cat([self.model.encode(part) for part in parts])
        return latents.unflatten(0, frames.shape[:2]).flatten(1, 2)

    def images(self, frames: Tensor) -> Tensor:
        """Frames (B, V, S, S, C) uint8 -> images (B V, C, S, S) in [0, 1] on its device."""
        return to_float(frames.flatten(0, 1).movedim(-1, 1), self.device)

    @abstractmethod
    def decode(self, latents: Tensor, frames: Tensor) -> Tensor:
        """Latents (B, *shape), also generated ones -> pictures (B, V, S, S, 3) uint8, on the CPU.

        What latents do not tell, such as a background, is taken from `frames` (B, V, S, S, C).
        """


def _how_to_get(kind: str, name: str = "") -> str:
    """The commands that bring an encoder; of a published `name` its own."""
    names = [name] if name in NAMES else [known for known in NAMES if known.startswith(kind)]
    return (
        f"fetch a published one (`python -m visual_encoders.download_chkpts {'|'.join(names)}`) or "
        f"train one (`python -m visual_encoders.train encoder.kind={kind} train_dataset_name=NAME`)"
    )


def _check_kind(path: Path, kind: str) -> None:
    """Raise `UserError` if the folder holds an encoder of another kind."""
    hparams = read_json(path / HPARAMS) if (path / HPARAMS).is_file() else {}
    kinds = [name for name in FROZEN if lookup(FROZEN, name, "obs").own_key in hparams]
    if kinds and kind not in kinds:
        raise UserError(
            f"{KEY}={path} is a {kinds[0]} encoder and obs={kind} needs a {kind} one; set "
            f"obs={kinds[0]} or give another folder"
        )


def to_bytes(images: Tensor, views: int) -> Tensor:
    """Images (B V, C, S, S) in [0, 1] -> pictures (B, V, S, S, C) uint8 on the CPU."""
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1)
    return pixels.unflatten(0, (-1, views)).cpu()
