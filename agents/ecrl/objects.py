"""Classifier of particles: object or not, by their visual features alone (for ECRL's rewards).

    python -m agents.ecrl.objects FILE obs=dlp rep_model_checkpoint=FOLDER [SETTING=VALUE ...]

Draws the starts of some episodes, lets the encoder make particles of them, and labels each by
whether its position lies on an object: unlike the reference, whose frames were labelled by hand,
but supervision all the same. FILE is what `td3.object_classifier` takes.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as serialise
from torch import Tensor, nn

from agents.observations.kinds import make_observation
from agents.observations.latents import Particles
from common.foundation.errors import UserError, one_line_errors
from common.foundation.files import atomic_write
from common.settings.config import Config, compose
from envs.make import make_world
from visual_encoders.frozen import EncoderChoice

HIDDEN, LAYERS = 128, 3
CLASS_WEIGHTS = (1.0, 0.4)  # of what is no object, and of objects
RATE, BATCH_SIZE, EPOCHS = 1e-3, 64, 20
FRAMES, TEST_SHARE = 20, 0.2


class ObjectClassifier(nn.Sequential):
    """Visual features (..., F), on any device -> whether they are an object's (...), booleans."""

    def __init__(self, features: int) -> None:
        widths = (features, *(HIDDEN,) * LAYERS)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        super().__init__(*layers, nn.Linear(HIDDEN, len(CLASS_WEIGHTS)))

    def logits(self, looks: Tensor) -> Tensor:
        """(..., F) -> (..., 2)."""
        return super().forward(looks)

    def forward(self, looks: Tensor) -> Tensor:
        logits = self.logits(looks.to(self[0].weight.device))
        return logits.argmax(dim=-1).bool().to(looks.device)

    def save(self, path: Path) -> None:
        with atomic_write(path) as file:
            file.write(serialise(self.state_dict()))


def load_classifier(path: str | Path, features: int) -> ObjectClassifier:
    """Read what `ObjectClassifier.save` wrote; raises `UserError` unless it is for F features."""
    try:
        tensors = read_tensors(Path(path).read_bytes())
        found = tensors["0.weight"].shape[1]
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"td3.object_classifier={path} cannot be read: {error}") from error
    if found != features:
        raise UserError(
            f"td3.object_classifier={path} is for {found} visual features, the particles have "
            f"{features}; train one for this encoder: python -m agents.ecrl.objects"
        )
    classifier = ObjectClassifier(features)
    classifier.load_state_dict(tensors)
    return classifier.requires_grad_(False)


def train_classifier(
    looks: Tensor, labels: Tensor, seed: int
) -> tuple[ObjectClassifier, list[float]]:
    """Learn labels (R,) booleans of visual features (R, F); returns it and each epoch's loss."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = ObjectClassifier(looks.shape[-1])
    adam = torch.optim.Adam(classifier.parameters(), lr=RATE)
    weights, losses = torch.tensor(CLASS_WEIGHTS), []
    for _ in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(looks), generator=generator).split(BATCH_SIZE):
            logits = classifier.logits(looks[rows])
            loss = F.cross_entropy(logits, labels[rows].long(), weights)
            adam.zero_grad()
            loss.backward()
            adam.step()
            total += loss.item() * len(rows)
        losses.append(total / len(looks))
    return classifier, losses


def on_objects(places: Tensor, masks: np.ndarray) -> Tensor:
    """True for positions (V, P, 2), row and column in [-1, 1], that lie on an object: (V, P).

    Args:
        masks: (V, H, W) booleans, the pixels in which an object is seen.
    """
    seen = torch.from_numpy(np.asarray(masks))
    size = torch.tensor(seen.shape[1:])
    pixels = ((places.cpu().clamp(-1, 1) + 1) / 2 * (size - 1)).round().long()
    rows, columns = pixels.unbind(dim=-1)
    return seen[torch.arange(len(seen))[:, None], rows, columns]


def label_particles(config: Config, frames: int) -> tuple[Tensor, Tensor]:
    """Visual features (frames, V P, F) of starts, and whether each is an object's (frames, V P).

    Raises `UserError` for observations other than particles, or a world that does not know.
    """
    world = make_world(config)
    observation = make_observation(config.obs, world, EncoderChoice.of(config))
    if not isinstance(observation, Particles):
        raise UserError(f"obs={config.obs} has no particles; set obs=dlp")
    env, looks, labels = world.make(pixels=True), [], []
    if not hasattr(env.unwrapped, "object_masks"):
        raise UserError(f"task={config.task} does not tell which pixels show objects")
    nobody = torch.empty(1, 0, dtype=torch.long)
    for index in range(frames):
        frame, _ = env.reset(seed=config.seed + index)
        particles = observation.encode(torch.from_numpy(np.array(frame))[None], nobody)[0].cpu()
        places = particles[:, :2].unflatten(0, (observation.views, -1))
        labels.append(on_objects(places, env.unwrapped.object_masks()).flatten())
        looks.append(particles[:, observation.spec.explicit :])
    env.close()
    return torch.stack(looks), torch.stack(labels)


def run(path: Path, config: Config, frames: int) -> None:
    """Train a classifier and write it to `path`; print how often it is right on frames set aside.

    Raises `UserError` if all particles are of one class.
    """
    looks, labels = label_particles(config, frames)
    apart = max(1, int(frames * TEST_SHARE))
    known, told = looks[apart:].flatten(0, 1), labels[apart:].flatten()
    if told.all() or not told.any():
        kind = "are all on objects" if told.any() else "are on no object"
        raise UserError(f"the particles of {frames} frames {kind}; give more frames or an encoder")
    classifier, losses = train_classifier(known, told, config.seed)
    with torch.no_grad():
        right = (classifier(looks[:apart]) == labels[:apart]).float().mean().item()
    classifier.save(path)
    share = labels.float().mean().item()
    print(f"loss {losses[-1]:.3f}; {share:.0%} of the particles are on objects")
    print(f"right for {right:.1%} of the particles of {apart} frames set aside: {path}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(
        "python -m agents.ecrl.objects",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="to be written")
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="as for train.py")
    parser.add_argument("--frames", type=int, default=FRAMES, help=f"default: {FRAMES}")
    options = parser.parse_args(arguments)
    with one_line_errors():
        if options.frames < 2:
            raise UserError(f"--frames={options.frames} is too few; allowed: 2 or more")
        run(options.file, compose(options.settings), options.frames)


if __name__ == "__main__":
    main()
