"""The device that computes, its threads, and its random numbers."""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from common.foundation.errors import UserError
from common.foundation.processes import available_cores


def resolve_device(name: str, key: str = "device") -> torch.device:
    """Return the device that the value `name` of setting `key` (auto, cpu, cuda, ...) stands for.

    auto is the first of cuda, mps and cpu that is there. Raises `UserError` for an absent one.
    """
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if _count(kind))
    device = torch.device(name)
    count = _count(device.type)
    if (device.index or 0) >= count:
        found = f"this machine has {count} {device.type} device{'s' * (count != 1)}"
        raise UserError(f"{key}={name}: {found}; use {key}=auto or {key}=cpu")
    return device


def seeded_generator(device: torch.device, *key: int) -> torch.Generator:
    """A generator on `device` whose numbers are a function of `key`, non-negative integers."""
    return torch.Generator(device).manual_seed(generator_seed(*key))


def generator_seed(*key: int) -> int:
    """The seed of `seeded_generator`: 63 bits that are a function of `key`."""
    entropy = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return int(entropy[0]) >> 1


def set_threads(threads: int) -> int:
    """Let torch use this many CPU threads, 0 for all cores of the process; return the number."""
    threads = threads or available_cores()
    torch.set_num_threads(threads)
    return threads


@contextlib.contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Inside, torch uses at most this many CPU threads; 0 changes nothing."""
    before = torch.get_num_threads()
    if not 0 < threads < before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def set_deterministic(wanted: bool) -> None:
    """Let every operation give the same bits each time, or raise an error if it cannot.

    On CPU it is so anyway. On CUDA sums in the order of arrival (scatter, index_add) and cuBLAS
    with several workspaces differ from run to run in the last bits otherwise.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(wanted)
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing reads such memory


def device_name(device: torch.device) -> str:
    """The model of a GPU, or of the CPU; where the system does not tell that, its kind."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")  # Linux, where `platform` knows the kind only
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def describe_device(device: torch.device) -> dict[str, str | int]:
    """Return the name of the device and the number of CPU threads, for the record of a run."""
    threads = torch.get_num_threads()
    return {"device": str(device), "device_name": device_name(device), "threads": threads}


def _count(kind: str) -> int:
    """Return how many devices of a kind there are."""
    if kind == "cuda":
        return torch.cuda.device_count()
    return int(kind == "cpu" or (kind == "mps" and torch.backends.mps.is_available()))
