"""Files made to do harm: each is refused, nothing in them runs, nothing is written elsewhere."""

import contextlib
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
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
from datasets.store import Dataset, episode_path
from tests.faults.report import Tally
from tests.helpers.datasets import record
from tests.helpers.encoder_folders import dlp_folder, vqvae_folder
from tests.helpers.point_world import point_world
from visual_encoders.checkpoints import load_folder, save_folder
from visual_encoders.frozen import EncoderChoice
from visual_encoders.latents import LatentStore

HUGE = 10**12
Trap = tuple[str, Callable[[], Any]]  # what it is; reads it


class Payload:
    """An object that makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.canary),)


class Place:
    """A folder for the traps; what appears beside it was written where it must not be."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.inside = folder / "inside"
        self.inside.mkdir(parents=True)
        self.outside, self.canary = folder, folder / "canary"

    @property
    def spilled(self) -> list[str]:
        return [path.name for path in self.outside.iterdir() if path != self.inside]

    def dataset(self, name: str) -> Dataset:
        """A small dataset to spoil."""
        return record(self.inside, name, episodes=2)


def pickles(place: Place) -> Iterator[Trap]:
    """Code where data should be."""
    payload = Payload(place.canary)
    last = place.inside / "last.safetensors"
    last.write_bytes(pickle.dumps(payload))
    yield "a pickle as a checkpoint", lambda: checkpoint.load_checkpoint(last)
    saved = place.inside / "saved.safetensors"
    torch.save({"a": payload}, saved)
    yield "torch.save as a checkpoint", lambda: checkpoint.load_checkpoint(saved)
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
            yield f"{key}={name}", lambda key=key, name=name: parse({**raw, key: name})
        yield f"dataset {name}", lambda name=name: dataset_folder(place.inside, name)
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
    makers: dict[str, Callable[[h5py.File], Any]] = {
        "external link": lambda file: file.__setitem__(
            "actions", h5py.ExternalLink(str(secret), "actions")
        ),
        "soft link": lambda file: file.__setitem__("actions", h5py.SoftLink("/qpos")),
        "external rows": lambda file: file.create_dataset(
            "actions", (30, 2), np.float32, external=external
        ),
        "virtual rows": lambda file: file.create_virtual_dataset("actions", layout),
    }
    for name, make in makers.items():
        dataset = place.dataset(name.replace(" ", "-"))
        with h5py.File(episode_path(dataset.folder, "train", 0), "r+") as file:
            del file["actions"]
            make(file)
        yield name, lambda dataset=dataset: dataset.read_episode("train", 0)


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
    for name, column in (("rows", ((10**6, 2), None)), ("columns", ((30, 10**9), (1, 10**6)))):
        dataset = place.dataset(name)
        with h5py.File(episode_path(dataset.folder, "train", 0), "r+") as file:
            del file["actions"]
            shape, chunks = column
            file.create_dataset("actions", shape, np.float32, chunks=chunks or True)
        wide = {"shape": [shape[1]], "dtype": "float32"}
        columns = dataset.header["columns"] | {"actions": wide}
        header = dataset.header | {"columns": columns, "max_episode_steps": 10**7}
        write_json(dataset.folder / "header.json", header)
        yield (
            f"{name} of an episode",
            lambda name=name: Dataset.open(place.inside, name).load(["actions"]),
        )
    dataset = place.dataset("many")
    counts = {"train": HUGE, "val": HUGE}
    write_json(dataset.folder / "header.json", dataset.header | {"episodes": counts})
    yield "episodes of a dataset", lambda: Dataset.open(place.inside, "many")
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
            dataset = place.dataset(name)
            with h5py.File(episode_path(dataset.folder, "train", 1), "r+") as file:
                file[column][4, 1] = value
            config = compose([f"data_dir={place.inside}", f"train_dataset_name={name}"])
            arguments = config, world, observation, device
            yield name, lambda arguments=arguments: load_training_data(*arguments)
        tensors = {"a": torch.tensor([0.0, value])}
        path = place.inside / f"{label}.safetensors"
        checkpoint.save(path, tensors, {"structure": {"tensor": "a"}})
        yield f"{value} in a checkpoint", lambda path=path: checkpoint.load_checkpoint(path)
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
        yield tag, lambda path=path: read_yaml(path)
        yield f"seed={tag}", lambda tag=tag: parse({**compose().raw, "seed": tag})


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
        yield f"checkpoint: {name}", lambda path=path: checkpoint.load_checkpoint(path)
    changes = {
        "command": 3,
        "columns": {"a": {"shape": ["x"], "dtype": "float32"}},
        "episodes": {"train": -1, "val": 0},
        "format_version": "new",
        "settings": None,
        "max_episode_steps": None,
    }
    changes["columns "] = None  # a key that is missing
    for key, value in changes.items():
        name = f"{key.strip()}-{len(key)}"
        dataset = place.dataset(name)
        header = {k: v for k, v in dataset.header.items() if k != key.strip()}
        header |= {key: value} if key == key.strip() else {}
        write_json(dataset.folder / "header.json", header)
        yield f"header: {key}", lambda name=name: Dataset.open(place.inside, name)
    path = place.inside / "deep.json"
    path.write_text(deep)
    dataset = place.dataset("deep")
    shutil.copy(path, dataset.folder / "header.json")
    yield "header: deep", lambda: Dataset.open(place.inside, "deep")


KINDS: dict[str, Callable[[Place], Iterator[Trap]]] = {
    "pickled code in checkpoints, weights, npz files and latents": pickles,
    "names, archive members and HDF5 links that lead out of the folder": paths,
    "shapes and sizes of terabytes": shapes,
    "NaN and infinity in data and checkpoints": numbers,
    "YAML with object tags": tags,
    "the right format with senseless content": nonsense,
}


def run(folder: Path) -> list[Tally]:
    """Walk into every trap."""
    tallies = []
    for fault, make in KINDS.items():
        place, tally = Place(folder), Tally(fault)
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
