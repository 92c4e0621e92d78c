"""Encode a dataset's images once, for training with obs=dlp or obs=vqvae.

    python -m visual_encoders.encode NAME obs=dlp rep_model_checkpoint=FOLDER [SETTING=VALUE ...]
    python -m visual_encoders.encode NAME obs=dlp ... --devices cuda:0,cuda:1

Training does it by itself on first use. As a command it can be done before, on another machine (the
folder that it prints goes beside the dataset), and on several GPUs. On CPU `num_workers` processes
encode, with the same bits for any number of them. Stopped or killed, the same command continues.
Data that the reference recorded (NAME.npz) need the settings that say what they hold, as in
training.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from common.foundation.errors import UserError, one_line_errors
from common.foundation.jobs import run_jobs
from common.foundation.processes import available_cores
from common.foundation.progress import Bar
from common.foundation.registry import OBSERVATIONS, lookup
from common.settings.config import compose
from datasets.command_line import world_of
from datasets.filling import exclusive
from datasets.npz_dataset import open_dataset
from datasets.source import EpisodeId, EpisodeSource
from datasets.store import HEADER, read_header
from envs.make import make_world
from visual_encoders.frozen import EncoderChoice, FrozenEncoder
from visual_encoders.images import COLUMN
from visual_encoders.latents import LatentStore, LatentWriter

CPU_IMAGES, GPU_IMAGES = 8, 128  # that go to the encoder at once; progress is reported after each


def encode_dataset(
    dataset: EpisodeSource,
    encoder: FrozenEncoder,
    views: int,
    *,
    div: int = 1,
    workers: int = 0,
    devices: Sequence[str] = (),
    progress: bool = True,
) -> LatentStore:
    """Encode what is missing of the first 1/`div` of the training episodes.

    Each process has one episode in memory at a time. Call from the main thread.

    Args:
        views: V of each row of images.
        workers: processes if the encoder is on the CPU; 0 = one per core.
        devices: each gets a process; none = that of the encoder.

    Raises UserError if another process does the same, if a worker fails or dies, if the disk is
    full, or if what is there is damaged; SystemExit on SIGINT and SIGTERM. What is encoded stays.
    """
    store = LatentStore.of(dataset, encoder, views)
    count = len(dataset.lengths(div=div))
    if store.missing(count):
        names = list(devices) or [str(encoder.device)]
        if names == ["cpu"]:
            names *= workers or available_cores()
        choices = [replace(encoder.choice, device=name) for name in names]
        recipes = [EncodingRecipe(dataset, choice, views, store) for choice in choices]
        with exclusive(store.folder):
            store.prepare()
            _encode_missing(store, recipes, count, progress)
    return store


def _encode_missing(
    store: LatentStore, recipes: list["EncodingRecipe"], count: int, progress: bool
) -> None:
    missing, recipe = store.missing(count), recipes[0]
    images = store.lengths[:count] * recipe.views
    total, left = int(images.sum()), int(images[missing].sum())
    print(f"encoding {left} of {total} images of {recipe.dataset} to {store.folder}")
    with Bar(total=total, initial=total - left, unit=" images", disable=not progress) as bar:
        run_jobs(
            recipes[: len(missing)],
            [EpisodeId("train", index) for index in missing],
            lambda rows: bar.update(rows * recipe.views),
            kept=lambda: f"{store.progress(count)} are kept, the same command continues",
        )


@dataclass(frozen=True)
class EncodingRecipe:
    """Work of an encoding process, see `common.foundation.pool.Task`."""

    dataset: EpisodeSource
    choice: EncoderChoice
    views: int
    store: LatentStore

    def make(self) -> "EncodingTool":
        """Load the encoder and open the files."""
        return EncodingTool(self)

    def run(self, tool: "EncodingTool", episode: EpisodeId) -> Generator[int, None, None]:
        """Encode one episode, which come in ascending order; yields the number of rows so far."""
        frames = torch.from_numpy(tool.read(episode.index))
        frames = frames.unflatten(0, (-1, 1)) if self.views == 1 else frames
        parts = []
        for part in frames.split(tool.rows):
            parts.append(tool.encoder.encode(part).cpu())
            yield sum(map(len, parts))
        latents = torch.cat(parts)
        if not torch.isfinite(latents).all():
            raise UserError(f"{self.choice.path} makes NaN or infinity of its images")
        tool.writer.write(episode.index, latents.numpy())


class EncodingTool:
    """Encoder, reader and writer of an encoding process."""

    def __init__(self, recipe: EncodingRecipe) -> None:
        self.encoder = recipe.choice.load()
        images = CPU_IMAGES if self.encoder.device.type == "cpu" else GPU_IMAGES
        self.rows = max(1, images // recipe.views)  # that go to the encoder at once
        with ExitStack() as stack:
            self.writer: LatentWriter = stack.enter_context(recipe.store.write())
            reader = recipe.dataset.reader(COLUMN)
            self.read: Callable[[int], np.ndarray] = stack.enter_context(reader)  # an episode
            self._files = stack.pop_all()

    def close(self) -> None:
        self._files.close()


def run(name: str, settings: Sequence[str], devices: Sequence[str]) -> Path:
    """Encode the dataset `name` as the settings say; return the folder of its latents."""
    config = compose([*settings, f"train_dataset_name={name}"])
    folder = Path(config.data_dir) / name
    known = (folder / HEADER).exists()
    world = world_of(read_header(folder)) if known else make_world(config)
    kind = lookup(OBSERVATIONS, config.obs, "obs")
    problem = world.observation_problem(kind.kind, kind.pixels)
    if problem:
        raise UserError(f"obs={config.obs} is not possible: {problem}")
    if not kind.encoded:
        raise UserError(f"obs={config.obs} is made without an encoder; set obs=dlp or obs=vqvae")
    observation = kind(world, EncoderChoice.of(config))
    dataset = open_dataset(config.data_dir, name, world, observation.collect_overrides)
    observation.check(dataset)
    store = encode_dataset(
        dataset,
        observation.encoder,
        observation.views,
        div=config.train_dataset_div,
        workers=config.num_workers,
        devices=devices,
    )
    return store.folder


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(
        "python -m visual_encoders.encode",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="the dataset")
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="as for train.py")
    parser.add_argument("--devices", default="", help="several, such as cuda:0,cuda:1")
    options = parser.parse_intermixed_args(arguments)
    with one_line_errors():
        print(run(options.name, options.settings, [d for d in options.devices.split(",") if d]))


if __name__ == "__main__":
    main()
