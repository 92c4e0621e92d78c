"""Choice of who computes the updates, and how fast."""

import importlib.util
import os
import shutil
import sys
from dataclasses import replace
from typing import Any

import torch

from common.data.buffer import Buffer
from common.data.draws import Draws, FetchedDraws
from common.foundation.errors import UserError
from common.foundation.messages import tell
from common.settings.config import Config
from common.settings.schema import show
from common.training.acceleration import Acceleration
from common.training.graphs import GraphUpdates
from common.training.pipelined import PipelinedUpdates
from common.training.team import Team
from common.training.updates import SharedUpdates, Sums, Updates

OLDEST_GPU = (7, 0)  # compute capability that Triton needs, which compiled code on CUDA is made of


def choose_acceleration(config: Config, device: torch.device, processes: int = 1) -> Acceleration:
    """Decide what `compile`, `cudagraphs`, `autocast` and `tf32` mean on this device and machine.

    `auto` is on for CUDA and off for others; it is also off, and says so, where a compiler is
    missing. Updates that several `processes` share are not captured, which nobody has tried.
    Raises `UserError` where something is asked for outright and not possible.
    """
    cuda = device.type == "cuda"
    graphs, tf32 = (_on_cuda(key, getattr(config, key), device) for key in ("cudagraphs", "tf32"))
    if config.cudagraphs is True and processes > 1:
        raise UserError("cudagraphs=true is for one process; use cudagraphs=auto or false")
    graphs = graphs and processes == 1
    if config.updates_per_graph > 1 and not graphs:
        raise UserError(
            f"updates_per_graph={config.updates_per_graph} needs CUDA graphs, which are off "
            f"(device {device}, cudagraphs={show(config.cudagraphs)}); use updates_per_graph=1"
        )
    if config.autocast and device.type == "mps":
        raise UserError("autocast=true is for CPU and CUDA, and the device is mps; use false")
    chosen = Acceleration(cudagraphs=graphs, autocast=config.autocast, tf32=tf32)
    wanted = cuda if config.compile == "auto" else config.compile
    problem = _missing_tool(device) if wanted else None
    if problem and config.compile is True:
        raise UserError(f"compile=true is not possible: {problem}; use compile=false")
    if problem:
        return replace(chosen, notes=(f"compile=auto: off, since {problem}",))
    if not wanted:
        return chosen
    note = f"compile={show(config.compile)}: the first update compiles the losses, which takes long"
    return replace(chosen, compile=True, notes=(note,))


def _on_cuda(key: str, value: bool | str, device: torch.device) -> bool:
    """Decide on a switch that only CUDA has: `auto` is on there."""
    cuda = device.type == "cuda"
    if value is True and not cuda:
        raise UserError(
            f"{key}=true needs a CUDA device, and the device is {device}; "
            f"use {key}=auto or {key}=false"
        )
    return cuda if value == "auto" else value


def _missing_tool(device: torch.device) -> str | None:
    """Describe what torch.compile needs on a device of this kind and does not find."""
    if device.type != "cuda":  # the name that torch looks for, which CXX may change
        name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        return None if shutil.which(name) else f"it needs a C++ compiler and there is no {name}"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST_GPU:
        return "the GPU is too old for it ({}.{}, not {}.{})".format(*capability, *OLDEST_GPU)
    if importlib.util.find_spec("triton") is None:
        return "it needs the package triton, which is not installed"
    if not any(shutil.which(name) for name in (os.environ.get("CC", ""), "gcc", "clang")):
        return "it needs a C compiler and there is neither gcc nor clang"
    return None


def make_updates(
    config: Config, agent: Any, buffer: Buffer, sums: Sums, team: Team | None = None
) -> "Updates":
    """The way to update that `parallel_update`, `compile` and `cudagraphs` ask for.

    `parallel_update=auto` takes two if it pays. A `team` of several processes shares each batch.
    Raises `UserError` for what cannot be had.
    """
    draws = Draws(buffer, agent.batch_size or config.batch_size, config.seed, agent.wants)
    processes = team.size if team else 1
    device = agent.context.device
    acceleration = choose_acceleration(config, device, processes)
    for note in acceleration.notes if team is None or team.is_main else ():
        tell(note)
    fetched = buffer.obs.device.type != device.type
    if config.updates_per_graph > 1:
        if buffer.grows:
            raise UserError(
                f"updates_per_graph={config.updates_per_graph} needs data that stay as they are, "
                f"and agent={agent.name} learns while it acts; use updates_per_graph=1"
            )
        if fetched:
            raise UserError(
                f"updates_per_graph={config.updates_per_graph} needs the training data on the "
                "GPU, and they are in main memory; use data_device=device or updates_per_graph=1"
            )
        return GraphUpdates(agent, draws, sums, acceleration, config.updates_per_graph)
    if fetched:
        draws = FetchedDraws(draws, device)
    threads = torch.get_num_threads()
    problem = _problem(config, agent, buffer, processes)
    if config.parallel_update == "always" and problem:
        raise UserError(f"parallel_update=always is not possible: {problem}; use auto or never")
    if processes > 1:
        return SharedUpdates(agent, draws, sums, acceleration, team)
    worthwhile = threads > 1 and not agent.context.networks.busy_threads
    wanted = {"always": True, "auto": worthwhile, "never": False}[config.parallel_update]
    if not wanted or problem:
        return Updates(agent, draws, sums, acceleration)
    return PipelinedUpdates(agent, draws, sums, max(1, threads // 2), acceleration)


def _problem(config: Config, agent: Any, buffer: Buffer, processes: int) -> str | None:
    """Why critics and policies cannot be updated in two processes, if they cannot."""
    if processes > 1:
        return f"{processes} processes share each batch already"
    if buffer.grows:
        return f"agent={agent.name} learns while it acts"
    if not agent.judges:
        return f"agent={agent.name} has no critics"
    if agent.context.device.type != "cpu":
        return "the device is not the CPU"
    if config.arch_eit.dropout > 0:
        return "arch_eit.dropout draws its numbers in the order of one process"
    if os.path.isdir("/dev/shm"):
        disk = os.statvfs("/dev/shm")
        if disk.f_bavail * disk.f_frsize < 1.2 * buffer.bytes:
            return f"shared memory (/dev/shm) has no room for {buffer.bytes / 2**20:.0f} MiB"
    return None
