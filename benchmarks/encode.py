"""Images per second and peak memory of turning a dataset's images into latents.

    python -m benchmarks.encode
    python -m benchmarks.encode --device cuda --batches 1 32 128

A DLP of the published size with random weights, on random images; `plain` is one image at a time.
The conversion is that of `visual_encoders.encode`, one process, of a small Push-Tetris dataset.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import (
    Row,
    Table,
    arguments,
    compare,
    largest_peak,
    note_peak,
    publish,
    stopwatch,
)
from benchmarks.subjects import make_benchmark_world
from common.foundation.device import resolve_device
from common.foundation.errors import one_line_errors
from common.foundation.jobs import run_jobs
from common.settings.config import compose
from datasets.collection import EpisodeRecipe, make_header
from datasets.filling import filling
from datasets.shards import Part
from datasets.source import EpisodeId
from datasets.store import Dataset
from visual_encoders.dlp.model import DLP
from visual_encoders.dlp.published import save
from visual_encoders.dlp.settings import DLPSettings
from visual_encoders.encode import EncodingRecipe
from visual_encoders.frozen import EncoderChoice, FrozenEncoder
from visual_encoders.latents import LatentStore

PIXELS = 128


@dataclass(frozen=True)
class NotingRecipe(EncodingRecipe):
    """Encodes as conversion does, and notes the process's memory after each episode."""

    def run(self, tool: Any, episode: EpisodeId) -> Iterator[int]:
        yield from super().run(tool, episode)
        note_peak(self.store.folder)


def make_encoder(folder: Path, device: str) -> FrozenEncoder:
    """A DLP of the default size with random weights, written to `folder` and read again."""
    sizes = vars(compose(["env_kwargs.manipobj.num_cubes=1"]).encoder_settings)
    own = {name: sizes[name] for name in DLPSettings.__dataclass_fields__ if name in sizes}
    torch.manual_seed(0)
    save(folder, DLP(DLPSettings(**own, image_size=PIXELS, cdim=3)))
    return EncoderChoice("dlp", str(folder), device).load()


def by_batch(encoder: FrozenEncoder, options: argparse.Namespace) -> Table:
    """The encoder alone."""
    table = Table("Images per second of the encoder, by images at once")
    generator = torch.Generator().manual_seed(0)
    shape = (max(options.batches), 1, PIXELS, PIXELS, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    works = {str(n): partial(encoder.encode, images[:n]) for n in sorted(options.batches)}
    times = compare(works, options.repeats, warmup=1, device=encoder.device)
    base = min(options.batches)
    for name, time in times.items():
        speed_up = times[str(base)].cpu / base / (time.cpu / int(name))
        row: Row = {"at once": int(name), "images/s": int(name) / time.wall}
        row |= {"s/image": time.wall / int(name), "CPU s/image": time.cpu / int(name)}
        table.rows.append(row | {"speed-up": speed_up})
    return table


def record_images(folder: Path, episodes: int, steps: int) -> Dataset:
    """A dataset of Push-Tetris with images, which needs no graphics."""
    world = make_benchmark_world("Push-Tetris, 3 pieces", steps, collects=True)
    settings = compose(["env_kwargs.manipobj.num_cubes=1"]).collect
    recipe = EpisodeRecipe(
        folder / "images", world, settings, 0, True, Part({"train": episodes, "val": 0}, 0, 1)
    )
    env = recipe.make()
    with filling(recipe.folder, make_header(recipe, "benchmarks.encode")) as dataset:
        for index in range(episodes):
            list(recipe.run(env, EpisodeId("train", index)))
    return dataset


def conversion(encoder: FrozenEncoder, folder: Path, options: argparse.Namespace) -> Table:
    """A dataset's images, read, encoded and written by one process."""
    table = Table("A latent conversion by one process, start and imports included")
    for episodes in options.sizes:
        dataset = record_images(folder / str(episodes), episodes, options.steps)
        store = LatentStore.of(dataset, encoder, 1)
        store.folder.mkdir()
        store.prepare()
        recipe = NotingRecipe(dataset, encoder.choice, 1, store)
        jobs = [EpisodeId("train", index) for index in range(episodes)]
        wall, _ = stopwatch(partial(run_jobs, [recipe], jobs, lambda rows: None))
        images = episodes * options.steps
        peak = largest_peak(store.folder)
        table.rows.append({"images": images, "images/s": images / wall, "MiB at most": peak})
    return table


def main() -> None:
    options = arguments(
        __doc__,
        batches={"type": int, "nargs": "+", "default": [1, 8, 32]},
        sizes={"type": int, "nargs": "+", "default": [2, 8], "help": "episodes"},
        steps={"type": int, "default": 25, "help": "images of an episode"},
    )
    resolve_device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        encoder = make_encoder(Path(folder) / "encoder", options.device)
        tables = [by_batch(encoder, options), conversion(encoder, Path(folder), options)]
    publish("encode", options, tables)


if __name__ == "__main__":
    with one_line_errors():
        main()
