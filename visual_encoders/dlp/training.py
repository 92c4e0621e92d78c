"""DLP for the trainer of encoders."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.settings.schema import setting
from visual_encoders.base import CHANNELS, EncoderModel, Metrics
from visual_encoders.dlp.losses import ObjectiveSettings, objective, phase_of
from visual_encoders.dlp.model import DLP, MAIN
from visual_encoders.dlp.pictures import pictures
from visual_encoders.dlp.published import export
from visual_encoders.dlp.settings import DLPSettings, DLPSizes

FEWEST = 0.5  # active particles of an image; with fewer they have collapsed


@dataclass(frozen=True)
class DLPTrainingSettings(DLPSizes, ObjectiveSettings):
    """Section `encoder.dlp`: the network, the weights of its losses, the number of epochs."""

    warmup_lr: float | None = setting(above=0)
    epochs: int = setting(low=1, identity=False)


class DLPTraining(EncoderModel):
    """DLP with its objective and the phases of its training."""

    Settings = DLPTrainingSettings

    def __init__(self, settings: DLPTrainingSettings, image_size: int) -> None:
        super().__init__()
        self.settings = settings
        sizes = {name: getattr(settings, name) for name in DLPSizes.__dataclass_fields__}
        self.network = DLP(DLPSettings(**sizes, image_size=image_size, cdim=CHANNELS))

    def forward(
        self, images: Tensor, epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Metrics]:
        phase = phase_of(epoch, self.settings.warmup_epoch) if self.training else MAIN
        return objective(self.network, images, self.settings, phase, generator)

    def learning_rate(self, lr: float, epoch: int) -> float:
        """Differs from the reference, which has one rate for all epochs.

        Glimpses stand a high one; the whole image does not: after a step that makes all particles
        transparent none gets a gradient.
        """
        warmup = phase_of(epoch, self.settings.warmup_epoch).warmup
        return self.settings.warmup_lr or lr if warmup else lr

    def problems(self, figures: Mapping[str, float]) -> dict[str, str]:
        """Particles that nothing is drawn with."""
        if figures["active"] >= FEWEST:
            return {}
        return {
            "particles": f"{figures['active']:.2g} of {self.settings.n_kp_enc} particles of an "
            "image are active: the background draws everything; look at encoder.lr, "
            "encoder.dlp.warmup_epoch, encoder.dlp.beta_kl and the pictures"
        }

    def pictures(self, images: Tensor) -> dict[str, Tensor]:
        return pictures(self.network, images)

    def export(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return export(self.network)
