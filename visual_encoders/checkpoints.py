"""Checkpoint folders of encoders: `hparams.json` and `best.pth`, a bare state dict.

The published encoders come as such folders. Weights are read with `weights_only=True`: a file can
hold tensors and nothing that runs.
"""

import dataclasses
import hashlib
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from common.foundation.errors import UserError
from common.foundation.files import atomic_write, read_json, write_json
from common.settings import schema as settings
from common.settings.schema import SettingError

HPARAMS, WEIGHTS = "hparams.json", "best.pth"
S = TypeVar("S")


def load_folder(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the hyperparameters and the weights, on the CPU, of the folder `path`.

    Wherever the weights were saved from, they come to the CPU; the caller moves them. Raises
    `UserError` if the folder or one of its two files is missing, or what is in them is damaged.
    """
    path = Path(path)
    _require(path)
    hparams = read_json(path / HPARAMS)
    if not isinstance(hparams, dict):
        raise UserError(f"{path / HPARAMS} does not hold names with values; copy it anew")
    return hparams, _read_weights(path / WEIGHTS)


def _require(path: Path) -> None:
    """Raise `UserError` unless the folder and its two files are there."""
    if not path.is_dir():
        raise UserError(f"no encoder at {path}; expected a folder with {HPARAMS} and {WEIGHTS}")
    missing = [name for name in (HPARAMS, WEIGHTS) if not (path / name).is_file()]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} missing in {path}; an encoder is a folder with {HPARAMS} and "
            f"{WEIGHTS} (rename the best weights of the run to {WEIGHTS})"
        )


def fingerprint(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the two files of the folder `path`: what tells encoders apart.

    Raises `UserError` if one is missing.
    """
    _require(Path(path))
    digest = hashlib.sha256()
    for name in (HPARAMS, WEIGHTS):
        digest.update(hashlib.sha256((Path(path) / name).read_bytes()).digest())
    return digest.hexdigest()


def save_folder(
    path: str | os.PathLike[str], hparams: Mapping[str, Any], state: Mapping[str, Tensor]
) -> None:
    """Write the folder `path` in the layout `load_folder` reads, each file atomically."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    write_json(path / HPARAMS, dict(hparams), sealed=True)
    # Copies: a view would drag the whole of its storage into the file.
    own = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    with atomic_write(path / WEIGHTS) as file:
        torch.save(own, file)


def read_settings(cls: type[S], hparams: Mapping[str, Any], path: str | os.PathLike[str]) -> S:
    """Make the settings dataclass `cls` from the hyperparameters of the folder `path`.

    Only the fields of `cls` are read; training notes beside them (name of the run, learning rate)
    are none of the network's business. Raises `SettingError` naming the file and the key.
    """
    file = Path(path) / HPARAMS
    names = [field.name for field in dataclasses.fields(cls)]
    missing = [name for name in names if name not in hparams]
    if missing:
        raise SettingError(f"{file} lacks {', '.join(missing)}; is it of another kind of encoder?")
    try:
        return settings.build(cls, {name: hparams[name] for name in names})
    except SettingError as error:
        raise SettingError(f"{file}: {error}") from error


def select_entries(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    ignored: Iterable[str],
    path: str | os.PathLike[str],
) -> dict[str, Tensor]:
    """Return the entries of `state` that `expected` names, once every name and shape fits.

    Args:
        state: what a weights file holds.
        expected: entries of the network, for their names and shapes.
        ignored: entries that may be there and are not used; a trailing `.` makes it a prefix.
        path: of the folder, for the message.

    Raises `UserError` for the first entry that is missing, unknown or of another shape.
    """
    ignored = tuple(ignored)
    prefixes = tuple(name for name in ignored if name.endswith("."))
    extra = [name for name in state if name not in expected and name not in ignored]
    unknown = [name for name in extra if not name.startswith(prefixes)]
    missing = [name for name in expected if name not in state]
    file = Path(path) / WEIGHTS
    for names, problem in ((missing, "lacks"), (unknown, "has the unknown entry")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(
                f"{file} {problem} {names[0]}{more}; it does not belong to {Path(path) / HPARAMS}"
            )
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            found, wanted = tuple(state[name].shape), tuple(tensor.shape)
            raise UserError(
                f"{file}: {name} has shape {found} instead of {wanted}; "
                f"it does not belong to {Path(path) / HPARAMS}"
            )
    return {name: state[name] for name in expected}


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        _check_sums(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged file can fail anywhere inside the reader
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path} is damaged or holds more than weights ({reason[0]}); copy it anew"
        ) from error
    if not isinstance(state, Mapping) or not all(torch.is_tensor(t) for t in state.values()):
        raise UserError(
            f"{path} is not a bare state dict (tensors by name); save one and try again"
        )
    return dict(state)


def _check_sums(path: Path) -> None:
    """Raise `BadZipFile` where bytes differ from their checksums, which torch does not look at."""
    if not zipfile.is_zipfile(path):  # torch before 1.6 wrote another format, without checksums
        return
    with zipfile.ZipFile(path) as archive:
        wrong = archive.testzip()
    if wrong is not None:
        raise zipfile.BadZipFile(f"wrong checksum of {wrong}")
