"""Bytes flipped and files cut short: what reads them says so, or reads the same as before."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.evaluation.results import save_results
from common.runs import checkpoint
from common.runs.folders import open_run, run_path
from common.runs.metrics import MetricsLog
from common.settings.config import compose
from common.tools.report import evaluations
from datasets.convert import export_npz
from datasets.npz_dataset import NpzDataset
from datasets.store import Dataset, episode_path
from tests.faults.processes import emptied
from tests.faults.report import Tally, ending
from tests.helpers.datasets import record
from tests.helpers.point_world import point_world
from tests.helpers.training import result
from visual_encoders.checkpoints import load_folder, save_folder
from visual_encoders.latents import LatentStore

CUTS = 4  # one try of so many cuts the file short instead of flipping a bit


@dataclass(frozen=True)
class Target:
    """A file to damage, and what its readers make of it.

    Attributes:
        read: gives something to compare; raises UserError for a damaged file.
        restored: what else must be put back before the next try, besides the file itself.
    """

    name: str
    path: Path
    read: Callable[[], Any]
    restored: tuple[Path, ...] = ()


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with one bit flipped, or a part of it."""
    place = int(rng.integers(len(content)))
    if rng.integers(CUTS) == 0:
        return content[:place]
    changed = bytearray(content)
    changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def run(target: Target, tries: int, seed: int = 0) -> Tally:
    """Damage one file again and again, each time in another way."""
    tally = Tally(f"a bit flipped in, or an end cut off, {target.name}")
    rng = np.random.default_rng(seed)
    intact = {path: path.read_bytes() for path in (target.path, *target.restored)}
    expected = plain(target.read())
    for number in range(tries):
        for path, content in intact.items():
            path.write_bytes(content)
        target.path.write_bytes(damaged(intact[target.path], rng))
        outcome, text = attempt(target, expected)
        tally.add(outcome, f"try {number} of {target.path.name}: {text}")
    for path, content in intact.items():
        path.write_bytes(content)
    if plain(target.read()) != expected:
        tally.lost.append("the intact file, put back, does not read as before")
    return tally


def attempt(target: Target, expected: Any) -> tuple[str, str]:
    """The end of reading the damaged file."""

    def read() -> None:
        if plain(target.read()) != expected:
            raise AssertionError("read as something else")

    end, text = ending(read)
    named = end != "told" or target.path.name in text
    return (end if named else "lost"), text


def plain(value: Any) -> Any:
    """Something that compares bit for bit."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value


def dataset_targets(place: Path) -> Iterator[Target]:
    """A collected dataset, and the same as the reference stores it."""
    dataset = record(place, "points", episodes=2, pixels=True)
    npz = place / "points.npz"
    export_npz(dataset, npz)

    def read() -> Any:
        again = Dataset.open(place, "points")
        header = {name: again.header[name] for name in dataset.header}  # others are not read
        return header, [again.read_episode("train", index) for index in (0, 1)]

    def read_npz() -> Any:
        source = NpzDataset(npz, point_world())
        return source.load(list(source.header["columns"]))

    yield Target("an episode", episode_path(dataset.folder, "train", 0), read)
    yield Target("a dataset's header", dataset.folder / "header.json", read)
    yield Target("a file of the reference (npz)", npz, read_npz)


def latent_targets(place: Path) -> Iterator[Target]:
    """Latents of random numbers, as an encoder would have written them."""
    lengths = np.array([5, 7, 6])
    header = {"format": "hecrl-latents", "rows": 18, "shape": [3], "episodes": 3}
    store = LatentStore(place / "latents", header, lengths)
    store.folder.mkdir()
    rng = np.random.default_rng(1)
    parts = [rng.standard_normal((length, 3), np.float32) for length in lengths]

    def read() -> Any:
        missing = store.missing(3)
        if missing:  # as a training does that finds episodes not yet encoded
            store.prepare()
            with store.write() as writer:
                for index in missing:
                    writer.write(index, parts[index])
        return np.array(store.read(3))

    read()
    files = [store.folder / name for name in ("latents.npy", "episodes.npy", "header.json")]
    yield from (Target(f"latents ({file.name})", file, read, tuple(files)) for file in files)


def run_targets(place: Path) -> Iterator[Target]:
    """Checkpoints, metrics and settings of a training run, and an evaluation of it."""
    run_folder, raw = place / "train" / "run", compose(["seed=3"]).raw
    run_folder.mkdir(parents=True)
    state = {"value": {"flat": torch.randn(60), "step": torch.tensor(3.0)}, 3: (torch.ones(2, 2),)}
    tensors, structure = checkpoint.flatten(state)
    meta = {"config": raw, "step": 20, "extra": {"best": 0.5}, "structure": structure}
    last = run_folder / "last.safetensors"
    checkpoint.save(last, tensors, meta)

    def read_checkpoint() -> Any:
        found = checkpoint.load_checkpoint(last)
        return found.state["value"], found.state[3], found.raw, found.step, found.extra

    train = run_folder / "train.csv"
    log = MetricsLog(train, None)
    for step in (5, 10, 15, 20):
        log.write(step, {"value/loss": 1 / step, "value/mean": -step / 3})

    def read_metrics() -> Any:
        MetricsLog(train, 20, log.checksum)
        return train.read_bytes()

    evaluation = place / "eval" / "one"
    evaluation.mkdir(parents=True)
    about = {"checkpoint": str(last), "updates": 20, "settings": raw}
    save_results(evaluation, result(1, 2), about)

    def read_results() -> Any:
        ((variant, (_, found)),) = evaluations(run_folder).items()
        return variant, {name: found[name] for name in ("summary", "episodes", *about)}

    yield Target("a checkpoint", last, read_checkpoint)
    yield Target("a run's metrics", train, read_metrics)
    yield Target("an evaluation's results", evaluation / "metrics.json", read_results)


def setting_targets(place: Path) -> Iterator[Target]:
    """The settings that a run's folder belongs to."""
    config = compose(["seed=3", f"output_dir={place / 'runs'}"])
    with open_run(config):
        pass
    file = run_path(config) / "config.json"

    def read() -> Any:
        with open_run(config) as folder:
            if folder.changes:
                raise AssertionError(f"said to be changed: {folder.changes}")
        return json.loads(file.read_text())

    yield Target("a run's settings", file, read, (run_path(config) / "provenance.json",))


def encoder_targets(place: Path) -> Iterator[Target]:
    """An encoder's folder."""
    folder = place / "encoder"
    hparams = {"n_kp": 1, "anchor_s": 0.25, "kp_activation": "tanh", "ch_mult": [1, 2]}
    save_folder(folder, hparams, {"weight": torch.randn(20, 3), "bias": torch.randn(3)})

    def read() -> Any:
        found, weights = load_folder(folder)
        return {name: found[name] for name in hparams}, weights  # others are not read

    yield Target("an encoder's weights", folder / "best.pth", read)
    yield Target("an encoder's sizes", folder / "hparams.json", read)


def targets(place: Path) -> list[Target]:
    """Everything that is read back, in `place`, which is made anew."""
    emptied(place)
    makers = (dataset_targets, latent_targets, run_targets, setting_targets, encoder_targets)
    return [target for make in makers for target in make(place)]


def run_all(place: Path, flips: int) -> list[Tally]:
    return [run(target, flips) for target in targets(place)]
