"""Encoders as their trainer sees them, and measures of pictures."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

CHANNELS = 3  # images are RGB
Metrics = dict[str, Tensor]  # name -> tensor whose mean over batches means something


class EncoderModel(nn.Module, ABC):
    """An encoder with its losses. Letters: B images, S their side in pixels.

    Attributes:
        Settings: dataclass of its section in `encoder`; it has `epochs`, how many to train.
        network: what is trained and stored; all its parameters get a gradient at each update, and
            all that its forward pass changes by itself must be in its state dict.
        remarks: lines to print when training starts: what the user should know of the losses.
    """

    Settings: ClassVar[type]
    network: nn.Module
    remarks: tuple[str, ...] = ()

    @abstractmethod
    def forward(
        self, images: Tensor, epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Metrics]:
        """Loss (a scalar, a mean over images) and metrics (without gradients) of a batch.

        In training mode the objective is that of `epoch` (from 0); in evaluation mode that of the
        last epoch, whatever `epoch` is. All random draws come from `generator`.

        Args:
            images: (B, 3, S, S) float32 in [0, 1].
            generator: on the device of the images.
        """

    @abstractmethod
    def pictures(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, S, S) and what becomes of them: name -> pictures (B, 3, S, S) in [0, 1].

        Deterministic; the first are the images themselves.
        """

    @abstractmethod
    def export(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Content of a checkpoint folder: hyperparameters (ready for JSON) and weights."""

    def learning_rate(self, lr: float, epoch: int) -> float:
        """The learning rate of `epoch` (from 0), before decay, where the run's is `lr`."""
        return lr

    def figures(self, means: Mapping[str, Tensor]) -> dict[str, float]:
        """Numbers to log from the means of the metrics over batches; the same keys each time."""
        return {name: float(mean) for name, mean in means.items()}

    def problems(self, figures: Mapping[str, float]) -> dict[str, str]:
        """Signs of trouble in these `figures`, by kind: what was seen and what to look at."""
        return {}


def to_float(images: Tensor, device: torch.device) -> Tensor:
    """uint8 images on `device`, as float32 in [0, 1]."""
    return images.to(device, non_blocking=True).float() / 255


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures in [0, 1], (B, 3, S, S) -> mean over images."""
    error = (images - others).square().mean((1, 2, 3))
    return -10 * error.clamp_min(1e-10).log10().mean()  # at most 100 dB
