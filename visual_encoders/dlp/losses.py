"""The training objective of DLP and its schedule.

Letters: B images, P proposals, K kept particles, C channels, H side of an image.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from common.settings.schema import SettingError, setting
from visual_encoders.base import Metrics
from visual_encoders.dlp.model import DLP, Encoding, Phase
from visual_encoders.dlp.settings import DLPSettings

ACTIVE = 0.5  # transparency above which a particle counts as active


@dataclass(frozen=True)
class ObjectiveSettings:
    """Weights of the objective and the length of its first phase; `config.yaml` explains them."""

    beta_rec: float = setting(low=0)
    beta_kl: float = setting(low=0)
    kl_balance: float = setting(low=0)
    recon_loss_type: str = setting(choices=("mse", "vgg"))
    warmup_epoch: int = setting(low=0)

    def __post_init__(self) -> None:
        if self.recon_loss_type == "vgg":
            raise SettingError(
                "recon_loss_type=vgg needs the weights of a VGG network, which this code does not "
                "bring; use recon_loss_type=mse, as all published encoders do"
            )


def phase_of(epoch: int, warmup_epochs: int) -> Phase:
    """Warm-up comes first; noise lasts one epoch longer. Epochs count from 0."""
    return Phase(warmup=epoch < warmup_epochs, noisy=epoch <= warmup_epochs)


def objective(
    model: DLP,
    images: Tensor,
    settings: ObjectiveSettings,
    phase: Phase,
    generator: torch.Generator | None,
) -> tuple[Tensor, Metrics]:
    """Loss of images (B, C, H, H) in [0, 1] and its terms, each a mean over the images.

    L = beta_rec rec + beta_kl (kl_base + kl_offset + kl_depth + kl_scale + kl_on
        + kl_balance (kl_features + kl_background)).

    Args:
        generator: on the images' device; None for means of the posteriors instead of samples.
    """
    encoding = model(images, generator, phase)
    result, target = reconstruct(model, encoding, images, phase, generator)
    rec = per_image(result - target)
    terms = kl_terms(encoding, model.size)
    balanced = settings.kl_balance * (terms["kl_features"] + terms["kl_background"])
    others = sum(v for k, v in terms.items() if k not in ("kl_features", "kl_background"))
    kl = others + balanced
    loss = settings.beta_rec * rec + settings.beta_kl * kl
    metrics = {"loss": loss, "rec": rec, "kl": kl, "psnr": psnr(result, target)}
    metrics |= presence(encoding) | terms
    return loss, {name: value.detach() for name, value in metrics.items()}


def reconstruct(
    model: DLP,
    encoding: Encoding,
    images: Tensor,
    phase: Phase,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """A reconstruction and what it should be: images (B, C, H, H), in warm-up B K glimpses.

    In warm-up the background is not decoded and its decoder gets gradients of zero. So, as in the
    reference, Adam counts these updates for it too, and processes that share gradients find one of
    each parameter. Differs from the reference, which logs 0 for the PSNR of the glimpses.
    """
    if phase.warmup:
        colours = model.decode_objects(encoding.particles)[:, :, 1:]
        idle = sum(parameter.sum() for parameter in model.background_decoder.parameters())
        return (colours + 0 * idle).flatten(0, 1), encoding.glimpses.flatten(0, 1)
    noise = generator if phase.noisy else None
    return model.decode(encoding.particles, encoding.background_code, noise).image, images


def presence(encoding: Encoding) -> Metrics:
    """Of an image's particles: the sum of their transparencies, and how many are active.

    Active is one whose transparency is above one half in the mean; a collapse shows in both.
    """
    on = encoding.found.attributes.on
    active = (on.draw(None) > ACTIVE).float()
    values = {"obj_on": encoding.particles.on, "active": active}
    return {name: value.sum(dim=(1, 2)).mean() for name, value in values.items()}


def per_image(error: Tensor) -> Tensor:
    """Sum of squares, divided by the leading axis: (B, ...) -> ()."""
    return error.square().sum() / len(error)


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images in [0, 1], of the error over all of them: ()."""
    return -10 / math.log(10) * (image - target).square().mean().log()


def kl_terms(encoding: Encoding, size: DLPSettings) -> Metrics:
    """Every KL term, summed over particles and numbers, mean over images."""
    attributes, found = encoding.found.attributes, encoding.found

    def total(kl: Tensor) -> Tensor:
        return kl.sum() / len(kl)

    return {
        "kl_base": chamfer_kl(found.bases, found.proposed.positions.detach(), size.sigma),
        "kl_offset": total(attributes.offset.kl(std=size.offset_std)),
        "kl_depth": total(attributes.depth.kl()),
        "kl_scale": total(attributes.scale.kl(size.scale_prior_mean, size.scale_std)),
        "kl_on": total(attributes.on.kl(size.obj_on_alpha, size.obj_on_beta)),
        "kl_features": total(encoding.features.kl()),
        "kl_background": total(encoding.background.kl()),
    }


def chamfer_kl(bases: Tensor, proposals: Tensor, sigma: float) -> Tensor:
    """Chamfer distance of two sets of Gaussians with KL(N(base, 1) || N(proposal, sigma^2)).

    Each base to its nearest proposal and each proposal to its nearest base, both (B, P, 2), summed
    and averaged over images. The KL goes this way in both sums.
    """
    difference = bases.unsqueeze(2) - proposals.unsqueeze(1)  # (B, base, proposal, 2)
    constant = 1 / sigma**2 - 1 + 2 * math.log(sigma)  # of each coordinate, 0 for sigma = 1
    kl = 0.5 * (difference.square() / sigma**2 + constant).sum(dim=-1)
    return (kl.amin(dim=1).sum() + kl.amin(dim=2).sum()) / len(bases)
