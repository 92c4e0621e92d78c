"""DLP as a whole: image -> particles and background -> image.

Letters: B images, C channels, H their side, P proposals, K kept particles, F appearance
features, D features of the background, G side of a glimpse.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.foundation.errors import UserError
from visual_encoders.dlp.decoder import (
    BackgroundDecoder,
    BackgroundEncoder,
    ObjectDecoder,
    Picture,
    background_mask,
    compose,
)
from visual_encoders.dlp.encoders import (
    AppearanceEncoder,
    AttributeEncoder,
    Attributes,
    Particles,
    Proposals,
    Proposed,
    initialise,
)
from visual_encoders.dlp.ops import Gaussian, cut_glimpses, normal_like, take
from visual_encoders.dlp.settings import DLPSettings


@dataclass(frozen=True)
class Phase:
    """Differences between epochs of training.

    Attributes:
        warmup: only glimpses are reconstructed; positions and scales get no gradient from that.
        noisy: scales are random around the glimpse's, and placed alphas carry noise.
    """

    warmup: bool
    noisy: bool


MAIN = Phase(warmup=False, noisy=False)


@dataclass(frozen=True)
class Found:
    """Places of particles: all `bases` (B, P, 2), and base and attributes of the K kept."""

    proposed: Proposed
    bases: Tensor
    kept_bases: Tensor
    attributes: Attributes


@dataclass(frozen=True)
class Encoding:
    """Posteriors of an image, what was drawn from them, and the glimpses (B, K, C, G, G)."""

    found: Found
    features: Gaussian
    background: Gaussian
    particles: Particles
    background_code: Tensor
    glimpses: Tensor
    mask: Tensor


class DLP(nn.Module):
    """Deep Latent Particles.

    Args:
        size: sizes and priors.
        particles: K, how many to keep, 1 to P; `None` keeps `size.n_kp_enc`, as in training.
            The background network has the width of `n_kp_enc` whatever is kept.
    """

    def __init__(self, size: DLPSettings, particles: int | None = None) -> None:
        super().__init__()
        self.size = size
        self.particles = size.n_kp_enc if particles is None else particles
        if not 1 <= self.particles <= size.proposals:
            raise UserError(
                f"cannot keep {particles} particles (dlp_post_training_num_kp) of {size.proposals} "
                f"proposals; allowed: integers of at least 1 and at most {size.proposals}"
            )
        self.proposals = Proposals(size)
        self.attributes = AttributeEncoder(size)
        self.appearance = AppearanceEncoder(size)
        self.object_decoder = ObjectDecoder(size)
        self.background_encoder = BackgroundEncoder(size)
        self.background_decoder = BackgroundDecoder(size)
        initialise(self)
        # Convolutions on CPU are a fifth faster in this layout, forward and backward (measured).
        self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Particles as agents see them: images (B, C, H, H) in [0, 1] -> (B, K, 6 + F).

        Means of the posteriors, in the order of the score; background and decoders do not run.
        """
        found = self._find(images)
        position = found.kept_bases + found.attributes.offset.mean
        scale = found.attributes.scale.mean
        features = self.appearance(self._glimpses(images, position, scale.sigmoid()))
        on, depth = found.attributes.on.draw(None), found.attributes.depth.mean
        return Particles(position, scale, depth, on, features.mean).rows()

    def forward(
        self, images: Tensor, generator: torch.Generator | None = None, phase: Phase = MAIN
    ) -> Encoding:
        """Encode images (B, C, H, H) in [0, 1] with everything that the objective needs.

        Args:
            generator: on the images' device; without one, posteriors give their means.
            phase: a noisy one needs a generator.
        """
        if phase.noisy and generator is None:
            raise ValueError("a noisy phase needs a generator")
        found = self._find(images)
        attributes = found.attributes
        position = found.kept_bases + attributes.offset.draw(generator)
        if phase.noisy:
            scale = self._random_scale(position, generator)
        else:
            scale = attributes.scale.draw(generator)
        if phase.warmup:
            position, scale = position.detach(), scale.detach()
        on, depth = attributes.on.draw(generator), attributes.depth.draw(generator)
        glimpses = self._glimpses(images, position, scale.sigmoid())
        features = self.appearance(glimpses)
        with torch.no_grad():
            box = self.size.glimpse_size
            mask = background_mask(position, on, box, self.size.image_size)
        background = self.background_encoder(images * mask)
        particles = Particles(position, scale, depth, on, features.draw(generator))
        code = background.draw(generator)
        return Encoding(found, features, background, particles, code, glimpses, mask)

    def decode_objects(self, particles: Particles) -> Tensor:
        """Decode each particle's patch, alpha and colours: (B, K, 1 + C, G, G)."""
        return self.object_decoder(particles.features)

    def decode(
        self,
        particles: Particles,
        background_code: Tensor,
        generator: torch.Generator | None = None,
    ) -> Picture:
        """Particles of B images and their backgrounds (B, D) -> `Picture`.

        Args:
            generator: for the noise of noisy epochs.
        """
        patches = self.decode_objects(particles)
        background = self.background_decoder(background_code)
        return compose(patches, particles, background, generator)

    def _find(self, images: Tensor) -> Found:
        """Proposals, two passes of the attribute encoder over all of them, and the best K.

        Kept are the smallest scores: variances of a proposal plus log-variances of its offset.
        """
        proposed = self.proposals(images)
        anchors = proposed.positions.detach()
        sizes = torch.full_like(anchors, self.size.anchor_s)
        first = self.attributes(self._glimpses(images, anchors, sizes))
        bases = proposed.positions + first.offset.mean
        sizes = first.scale.mean.detach().sigmoid()
        attributes = self.attributes(self._glimpses(images, bases.detach(), sizes))
        score = proposed.spread.sum(dim=-1) + attributes.offset.logvar.sum(dim=-1)
        # Differs from the reference, which keeps all proposals, unsorted, from n_kp_prior on.
        kept = score.detach().topk(self.particles, largest=False).indices
        return Found(proposed, bases, take(bases, kept), attributes.select(kept))

    def _glimpses(self, images: Tensor, centres: Tensor, sizes: Tensor) -> Tensor:
        return cut_glimpses(images, centres, sizes, self.size.glimpse_size)

    def _random_scale(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Scale logits around that of an anchor, with the deviation of their prior."""
        return self.size.anchor_logit + self.size.scale_std * normal_like(like, generator)
