"""Checkpoints: one safetensors file each, tensors and JSON, no pickle."""

import contextlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from common.foundation.errors import UserError
from common.foundation.files import atomic_write

FORMAT = "hecrl-checkpoint-1"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read."""

    path: Path
    raw: dict[str, Any]  # the run's settings
    step: int  # its updates
    extra: dict[str, Any]
    state: dict[str, Any]  # nested dictionaries of tensors
    encoder: str | None = None  # SHA-256 of the frozen encoder that made its observations
    acting_only: bool = False  # lacks what only learning reads, see `common.runs.export`
    data: dict[str, Any] | None = None  # what it learned from, see `common.runs.identity`
    checksum: str = ""  # CRC-32 of everything in it, which tells checkpoints apart


def save(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], meta: Any) -> None:
    """Write tensors by name and `meta` (ready for JSON) to `path`, atomically."""
    # Copies, because safetensors refuses tensors that share memory.
    own = {k: t.detach().to("cpu", copy=True).contiguous() for k, t in tensors.items()}
    text = json.dumps(meta)
    about = {"format": FORMAT, "meta": text, "checksum": _checksum(own, text)}
    content = serialise(own, metadata=about)
    with atomic_write(path) as file:
        file.write(content)


def load(
    path: str | os.PathLike[str], device: str | torch.device = "cpu"
) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors, on `device`, and the meta data of a file that `save` wrote.

    States of generators belong on the CPU, whatever device they drew for.
    Raises `UserError` if the file is missing, damaged or not a checkpoint.
    """
    tensors, meta, _ = _load(Path(path))
    return {name: tensor.to(device) for name, tensor in tensors.items()}, meta


def summary(path: str | os.PathLike[str]) -> tuple[Any, str]:
    """Return the meta data and the checksum of a file that `save` wrote, without its tensors."""
    path = Path(path)
    with _opened(path) as (_, header), reported(path):
        if "checksum" in header:
            return dict(json.loads(header["meta"])), header["checksum"]
    return _load(path)[1:]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, str]]]:
    """The file, and its header."""
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; train.py writes them into its run folder")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                expected = f"expected format {FORMAT}"
                raise UserError(f"{path} is not a checkpoint of this code; {expected}")
            yield file, header
    except SafetensorError as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _load(path: Path) -> tuple[dict[str, Tensor], Any, str]:
    """Tensors, meta data and the checksum of both."""
    with _opened(path) as (file, header):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    with reported(path):
        text = header["meta"]
        checksum = _checksum(tensors, text)
        # Files of earlier versions of this code have no checksum.
        if header.get("checksum", checksum) != checksum:
            raise ValueError("its checksum is another one")
        return tensors, json.loads(text), checksum


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Raises `UserError` if it is missing, damaged or holds numbers that are not finite.
    """
    tensors, meta, checksum = _load(path)
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise UserError(f"{path} holds NaN or infinity in {broken[0]}; use another checkpoint")
    with reported(path):
        state = unflatten(tensors, meta["structure"])
        encoder = meta.get("encoder")  # files older than encoders lack it
        raw, acting_only = meta["config"], meta.get("acting_only", False)
        parts = path, raw, meta["step"], meta["extra"], state, encoder, acting_only
        return Checkpoint(*parts, meta.get("data"), checksum)


@contextlib.contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn what the content of a strange checkpoint leads to into a `UserError`."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} is damaged or not a checkpoint ({error!s:.200}); use another one, or remove it"
    )


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    """CRC-32 of everything in a checkpoint: safetensors itself has no checksums."""
    crc = zlib.crc32(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        crc = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), crc)
    return f"{crc:08x}"


def flatten(nested: Any) -> tuple[dict[str, Tensor], Any]:
    """Split nested dictionaries, lists and tuples into tensors by name and the JSON around them.

    In the JSON a tensor is `{"tensor": name}`, a tuple `{"tuple": [...]}` and a dictionary
    `{"dict": [[key, value], ...]}`, so that integer keys and tuples survive; the rest is itself.
    Raises `TypeError` for a value that JSON could not give back unchanged.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _flatten(nested, "", tensors)


def unflatten(tensors: Mapping[str, Tensor], structure: Any) -> Any:
    """Return what `flatten` was given."""
    if isinstance(structure, list):
        return [unflatten(tensors, part) for part in structure]
    if not isinstance(structure, dict):
        return structure
    ((kind, content),) = structure.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(unflatten(tensors, part) for part in content)
    return {key: unflatten(tensors, part) for key, part in content}


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors of `value` to `tensors`, named after where they were; return the rest."""
    if isinstance(value, Tensor):
        name = path or "value"
        while name in tensors:  # {"a": {"b": x}, "a/b": y}
            name += "'"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[_key(k), _flatten(v, _at(path, k), tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        parts = [_flatten(v, _at(path, i), tensors) for i, v in enumerate(value)]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path}: cannot store {type(value).__name__} in a checkpoint")


def _key(key: Any) -> Any:
    if isinstance(key, bool) or not isinstance(key, int | str):
        raise TypeError(f"cannot store a dictionary with the key {key!r} in a checkpoint")
    return key


def _at(path: str, key: Any) -> str:
    return f"{path}/{key}" if path else str(key)
