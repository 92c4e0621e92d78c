"""Training objective of the VQ-VAE."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.settings.schema import setting
from visual_encoders.base import CHANNELS, EncoderModel, Metrics, psnr
from visual_encoders.vqvae.model import VQVAE, VQVAESettings, VQVAEWidths, to_unit
from visual_encoders.vqvae.perceptual import load_lpips
from visual_encoders.vqvae.published import export

COLLAPSED, COLLAPSED_SHARE = 2.0, 0.005  # perplexity of a collapsed codebook, share of its codes


@dataclass(frozen=True)
class VQVAETrainingSettings(VQVAEWidths):
    """Section `encoder.vqvae`: the network's sizes, the number of epochs, the perceptual loss."""

    epochs: int = setting(low=1, identity=False)
    lpips: str | None = setting()


class VQVAETraining(EncoderModel):
    """Mean absolute error, perceptual distance and codebook loss; no adversary.

    L = mean |x - x^| + mean LPIPS(x, x^) + L_vq, on images in [-1, 1], all weights 1.
    """

    Settings = VQVAETrainingSettings

    def __init__(self, settings: VQVAETrainingSettings, image_size: int) -> None:
        super().__init__()
        sizes = {name: getattr(settings, name) for name in VQVAEWidths.__dataclass_fields__}
        self.network = VQVAE(VQVAESettings(**sizes, image_size=image_size, ch=CHANNELS))
        self.lpips = None if settings.lpips is None else load_lpips(settings.lpips)
        if self.lpips is None:
            self.remarks = (
                "no perceptual loss (encoder.vqvae.lpips=null): |x - x^| and the codebook's alone, "
                "so reconstructions are blurrier than the reference's",
            )

    def forward(
        self, images: Tensor, epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Metrics]:
        codes = self.network.quantise(images)
        decoded = self.network.decode(codes.latent)
        target = 2 * images - 1
        parts = {"l1": (target - decoded).abs().mean(), "codebook": codes.loss}
        if self.lpips is not None:
            parts["lpips"] = self.lpips(target, decoded).mean()
        loss = torch.stack(list(parts.values())).sum()
        metrics = {"loss": loss, **parts, "psnr": psnr(images, to_unit(decoded))}
        metrics = {name: value.detach() for name, value in metrics.items()}
        return loss, metrics | {"usage": self._usage(codes.indices)}

    def _usage(self, indices: Tensor) -> Tensor:
        """Share of the positions that each code takes, (codes,)."""
        flat = indices.flatten()
        count = torch.zeros(self.network.settings.n_embed, device=flat.device)
        return count.index_add_(0, flat, torch.ones_like(flat, dtype=count.dtype)) / len(flat)

    def figures(self, means: Mapping[str, Tensor]) -> dict[str, float]:
        """Scalars as they are; of the codes: how many are in use, and exp of their entropy.

        A codebook that collapses shows in both; equal use of all codes gives their number in both.
        """
        usage = means["usage"]
        numbers = super().figures({k: mean for k, mean in means.items() if k != "usage"})
        entropy = torch.special.entr(usage).sum()
        return numbers | {"codes_used": int((usage > 0).sum()), "perplexity": float(entropy.exp())}

    def problems(self, figures: Mapping[str, float]) -> dict[str, str]:
        """A codebook that has collapsed to a few codes."""
        codes = self.network.settings.n_embed
        if figures["perplexity"] >= max(COLLAPSED, COLLAPSED_SHARE * codes):
            return {}
        return {
            "codebook": f"the images take {figures['codes_used']} of {codes} codes, as evenly as "
            f"{figures['perplexity']:.1f} would be: the codebook collapses; look at encoder.lr, "
            "encoder.vqvae.n_embed and the pictures"
        }

    @torch.no_grad()
    def pictures(self, images: Tensor) -> dict[str, Tensor]:
        reconstruction = to_unit(self.network.decode(self.network.quantise(images).latent))
        return {"image": images, "reconstruction": reconstruction}

    def export(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return export(self.network, self.lpips)
