"""Files made to do harm: each is refused, nothing in them runs, nothing is written elsewhere."""

import contextlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from safetensors.torch import save_file

from agents.observations.kinds import make_observation
from common.foundation.errors import one_line_errors
from common.foundation.files import read_json, write_json
from common.runs import checkpoint
from common.runs.loading import load_training_data
from common.settings.config import compose, parse, read_yaml
from datasets.convert import import_npz
from datasets.filling import dataset_folder
from datasets.npz_dataset import NpzDataset
from datasets.store import Dataset, episode_path, read_header
from tests.faults.processes import emptied
from tests.faults.report import Tally
from tests.helpers.datasets import record
from tests.helpers.encoder_folders import dlp_folder, vqvae_folder
from tests.helpers.point_world import point_world
from visual_encoders.checkpoints import load_folder, save_folder
from visual_encoders.frozen import EncoderChoice
from visual_encoders.latents import LatentStore

HUGE = 10**12
Trap = tuple[str, Callable[[], Any]]  # its name; reads it


class Payload:
    """An object that makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.canary),)


class Place:
    """A folder for the traps; what appears beside it was written where it must not be."""

    def __init__(self, folder: Path) -> None:
        self.inside = emptied(folder / "inside")
        self.outside, self.canary = folder, folder / "canary"

    @property
    def spilled(self) -> list[str]:
        return [path.name for path in self.outside.iterdir() if path != self.inside]

    def dataset(self, name: str) -> Dataset:
        """A small dataset to spoil."""
        return record(self.inside, name, episodes=2)

    def episode(self, name: str, index: int = 0) -> h5py.File:
        """An episode of a new dataset, open to be spoiled."""
        return h5py.File(episode_path(self.dataset(name).folder, "train", index), "r+")

    def change_header(self, name: str, **changes: Any) -> None:
        path = self.inside / name / "header.json"
        write_json(path, read_header(path.parent) | changes)

    def open(self, name: str) -> Dataset:
        return Dataset.open(self.inside, name)


def pickles(place: Place) -> Iterator[Trap]:
    """Code where data should be."""
    payload = Payload(place.canary)
    last = place.inside / "last.safetensors"
    last.write_bytes(pickle.dumps(payload))
    yield "a pickle as a checkpoint", lambda: checkpoint.load_checkpoint(last)
    torch.save({"a": payload}, last)
    yield "torch.save as a checkpoint", lambda: checkpoint.load_checkpoint(last)
    encoder = place.inside / "encoder"
    for zipped in (True, False):
        save_folder(encoder, {}, {})
        torch.save({"a": payload}, encoder / "best.pth", _use_new_zipfile_serialization=zipped)
        yield f"code among weights, zip={zipped}", lambda: load_folder(encoder)
    npz = place.inside / "objects.npz"
    np.savez(npz, actions=np.array([payload], object), terminals=np.ones(1))
    yield "objects in an npz file", lambda: NpzDataset(npz, point_world())
    store = LatentStore(place.inside, {"rows": 1, "shape": [1]}, np.array([1]))
    write_json(place.inside / "header.json", store.header)
    np.save(place.inside / "latents.npy", np.array([payload], object))
    np.save(place.inside / "episodes.npy", np.zeros(1, np.uint64))
    yield "objects as latents", lambda: store.read(1)


def paths(place: Place) -> Iterator[Trap]:
    """Names and links that lead out of the folder."""
    raw, npz = compose().raw, place.inside / "paths.npz"
    for name in ("../canary", "/canary", "a/../../canary", ".."):
        for key in ("run_name", "dataset_name", "train_dataset_name", "eval_variant_name"):
            yield f"{key}={name}", partial(parse, {**raw, key: name})
        yield f"dataset {name}", partial(dataset_folder, place.inside, name)
        with zipfile.ZipFile(npz, "w") as archive:
            archive.writestr(f"{name}.npy", b"x")
        yield f"member {name}.npy", lambda: NpzDataset(npz, point_world())
    secret = place.inside / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["actions"] = np.zeros((30, 2), np.float32)
    raw_file = place.inside / "secret.bin"
    raw_file.write_bytes(bytes(240))
    layout = h5py.VirtualLayout((30, 2), np.float32)
    layout[:] = h5py.VirtualSource(str(secret), "actions", (30, 2))
    external = [(str(raw_file), 0, h5py.h5f.UNLIMITED)]
    rows = {"shape": (30, 2), "dtype": np.float32, "external": external}
    makers: dict[str, Callable[[h5py.File], Any]] = {
        "external link": lambda file: file.update(actions=h5py.ExternalLink(secret, "actions")),
        "soft link": lambda file: file.update(actions=h5py.SoftLink("/qpos")),
        "external rows": lambda file: file.create_dataset("actions", **rows),
        "virtual rows": lambda file: file.create_virtual_dataset("actions", layout),
    }
    for kind, make in makers.items():
        name = kind.replace(" ", "-")
        with place.episode(name) as file:
            del file["actions"]
            make(file)
        yield kind, partial(place.open(name).read_episode, "train", 0)


def shapes(place: Place) -> Iterator[Trap]:
    """Promises of terabytes."""
    last = place.inside / "huge.safetensors"
    about = {"a": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}
    header = json.dumps(about).encode()
    last.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    yield "a checkpoint", lambda: checkpoint.load_checkpoint(last)
    npz = place.inside / "huge.npz"
    with zipfile.ZipFile(npz, "w") as archive, archive.open("terminals.npy", "w") as member:
        described = {"descr": "<f8", "fortran_order": False, "shape": (HUGE,)}
        np.lib.format.write_array_header_1_0(member, described)
    yield "an npz file", lambda: NpzDataset(npz, point_world())
    for name, shape, chunks in (
        ("rows", (10**6, 2), True),
        ("columns", (30, 10**9), (1, 10**6)),
    ):
        with place.episode(name) as file:
            del file["actions"]
            file.create_dataset("actions", shape, np.float32, chunks=chunks)
        wide = {"shape": [shape[1]], "dtype": "float32"}
        columns = place.open(name).header["columns"] | {"actions": wide}
        place.change_header(name, columns=columns, max_episode_steps=10**7)
        yield f"{name} of an episode", lambda name=name: place.open(name).load(["actions"])
    place.dataset("many")
    place.change_header("many", episodes={"train": HUGE, "val": HUGE})
    yield "episodes of a dataset", lambda: place.open("many")
    for kind, key in (("vqvae", "n_embed"), ("vqvae", "base_ch"), ("dlp", "learned_feature_dim")):
        folder = place.inside / f"{kind}-{key}"
        vqvae_folder(folder, 64) if kind == "vqvae" else dlp_folder(folder)
        hparams = read_json(folder / "hparams.json")
        write_json(folder / "hparams.json", hparams | {key: 32 * HUGE})
        yield f"{key} of an encoder", EncoderChoice(kind, str(folder), "cpu").load


def numbers(place: Place) -> Iterator[Trap]:
    """NaN and infinity in what agents learn from."""
    world = point_world()
    observation, device = make_observation("state", world), torch.device("cpu")
    for label, value in (("nan", np.nan), ("inf", np.inf), ("minus-inf", -np.inf)):
        for column in ("actions", "state_observations", "qpos"):
            name = f"{column}-{label}"
            with place.episode(name, 1) as file:
                file[column][4, 1] = value
            config = compose([f"data_dir={place.inside}", f"train_dataset_name={name}"])
            yield name, partial(load_training_data, config, world, observation, device)
        path = place.inside / f"{label}.safetensors"
        tensors = {"a": torch.tensor([0.0, value])}
        checkpoint.save(path, tensors, {"structure": {"tensor": "a"}})
        yield f"{value} in a checkpoint", partial(checkpoint.load_checkpoint, path)
    npz = place.inside / "nan.npz"
    columns = {n: np.full((4, *s), 0, d) for n, (s, d) in world.dataset_columns(False).items()}
    columns["terminals"][-1] = True
    columns["qpos"][2] = np.nan
    np.savez(npz, **columns)
    yield "nan imported", lambda: import_npz(npz, "imported", place.inside, world, "import")


def tags(place: Place) -> Iterator[Trap]:
    """YAML that names Python objects."""
    call = f"!!python/object/apply:os.mkdir ['{place.canary}']"
    for number, tag in enumerate((call, call.replace("apply", "new"), "!!python/name:os.mkdir ''")):
        path = place.inside / f"{number}.yaml"
        path.write_text(f"seed: {tag}\n")
        yield tag, partial(read_yaml, path)
        yield f"seed={tag}", partial(parse, {**compose().raw, "seed": tag})


def nonsense(place: Place) -> Iterator[Trap]:
    """Files of the right format whose content makes no sense."""
    deep = "[" * 100_000
    metas = {"nothing": "{}", "list": "[]", "text": '"a"', "deep": deep, "broken": "{"}
    metas["structure"] = '{"structure": {"a": 1, "b": 2}}'
    metas["name"] = '{"structure": {"tensor": 1}}'
    for name, meta in metas.items():
        path = place.inside / f"{name}.safetensors"
        about = {"format": checkpoint.FORMAT, "meta": meta}
        save_file({"a": torch.ones(1)}, path, metadata=about)
        yield f"checkpoint: {name}", partial(checkpoint.load_checkpoint, path)
    changes = {
        "command": 3,
        "columns": {"a": {"shape": ["x"], "dtype": "float32"}},
        "episodes": {"train": -1, "val": 0},
        "format_version": "new",
        "settings": None,
        "max_episode_steps": None,
    }
    for key, value in changes.items():
        place.dataset(key)
        place.change_header(key, **{key: value})
        yield f"header: {key}", partial(place.open, key)
    for name in ("without-columns", "deep"):
        dataset = place.dataset(name)
        header = {key: value for key, value in dataset.header.items() if key != "columns"}
        text = deep if name == "deep" else json.dumps(header)
        (dataset.folder / "header.json").write_text(text)
        yield f"header: {name}", partial(place.open, name)


KINDS: dict[str, Callable[[Place], Iterator[Trap]]] = {
    "pickled code in checkpoints, weights, npz files and latents": pickles,
    "names, archive members and HDF5 links that lead out of the folder": paths,
    "shapes and sizes of terabytes": shapes,
    "NaN and infinity in data and checkpoints": numbers,
    "YAML with object tags": tags,
    "the right format with senseless content": nonsense,
}


def run_all(folder: Path) -> list[Tally]:
    """Walk into every trap."""
    tallies = []
    for fault, make in KINDS.items():
        place, tally = Place(emptied(folder)), Tally(fault)
        for name, read in make(place):
            tally.add(*spring(read, name))
        if place.spilled:
            tally.lost.append(f"written outside of the folder: {place.spilled}")
        tallies.append(tally)
    return tallies


def spring(read: Callable[[], Any], name: str) -> tuple[str, str]:
    """The end of a command that reads a trap."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), one_line_errors():
            read()
    except SystemExit as stop:
        clear = stop.code == 2 and len(said.getvalue().splitlines()) == 1
        return ("told" if clear else "lost"), f"{name}: {said.getvalue()}"
    except Exception as error:  # exactly what must not happen
        return "lost", f"{name}: {type(error).__name__}: {error}"
    return "lost", f"{name}: it was read without a word"
