"""Faster updates, above all on a GPU: compiled losses (`compile`) and CUDA graphs (`cudagraphs`).

Both wrap an agent from outside; its eager code stays the reference, equal up to rounding.
Compiling was run on CPU only so far; capturing follows torch's documentation and never ran on a
GPU: compare the curves of a short run with those of `compile=false cudagraphs=false` first.
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from agents.base import Metrics, Noise
from common.config import Config
from common.errors import UserError
from common.settings import show

# What is compiled of an agent: all its work but for the optimiser, which is a handful of operations
# on flat tensors. Acting stays eager, since its number of rows varies.
LOSSES = ("value_loss", "critic_loss", "policy_loss", "subgoal_loss", "window_loss")
WARM_UP = 3  # updates before capturing, as torch's documentation has it
OLDEST_GPU = (7, 0)  # compute capability that Triton needs, which compiled code on CUDA is made of


@dataclass(frozen=True)
class Acceleration:
    """What makes updates faster, and what is to be said about it.

    Attributes:
        compile: whether losses are compiled. cudagraphs: whether updates are captured.
        notes: a line each.
    """

    compile: bool = False
    cudagraphs: bool = False
    notes: tuple[str, ...] = ()


EAGER = Acceleration()


def choose_acceleration(config: Config, device: torch.device, processes: int = 1) -> Acceleration:
    """What `compile` and `cudagraphs` come to on this device and machine.

    `auto` is on for CUDA and off for others; it is also off, and says so, where a compiler is
    missing. Updates that several `processes` share are not captured, which nobody has tried.
    Raises `UserError` where something is asked for outright and not possible.
    """
    cuda = device.type == "cuda"
    if config.cudagraphs is True and not cuda:
        raise UserError(
            f"cudagraphs=true needs a CUDA device, and the device is {device}; "
            "use cudagraphs=auto or cudagraphs=false"
        )
    if config.cudagraphs is True and processes > 1:
        raise UserError("cudagraphs=true is for one process; use cudagraphs=auto or false")
    graphs = cuda and processes == 1 if config.cudagraphs == "auto" else config.cudagraphs
    wanted = cuda if config.compile == "auto" else config.compile
    problem = _missing_tool(device) if wanted else None
    if problem and config.compile is True:
        raise UserError(f"compile=true is not possible: {problem}; use compile=false")
    if problem:
        return Acceleration(False, graphs, (f"compile=auto: off, since {problem}",))
    note = f"compile={show(config.compile)}: the first update compiles the losses, which takes long"
    return Acceleration(wanted, graphs, (note,) if wanted else ())


def _missing_tool(device: torch.device) -> str | None:
    """What torch.compile needs on a device of this kind and does not find, in words."""
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


def compile_losses(agent: Any, backend: str = "inductor") -> None:
    """Let an agent's losses be compiled when they are first computed; `update` then uses them.

    Nothing falls back to eager code: what cannot be compiled in one piece is an error, and so is
    a loss that would have to be compiled a second time.
    """
    for name in LOSSES:
        if hasattr(agent, name):
            setattr(agent, name, _compiled(getattr(agent, name), backend))


def _compiled(loss: Callable[..., Any], backend: str) -> Callable[..., Any]:
    compiled = torch.compile(loss, fullgraph=True, dynamic=False, backend=backend)
    stance = "default"

    def call(*arguments: Any) -> Any:
        nonlocal stance
        with torch.compiler.set_stance(stance):
            result = compiled(*arguments)
        stance = "fail_on_recompile"
        return result

    return call


class CapturedUpdate:
    """`agent.update` as one CUDA graph: one launch instead of thousands from Python.

    The first updates run as they are, on a stream of their own as capturing wants it, and count
    like any other. The next one is captured. From then on an update is a copy of its batch and
    noise to where the graph reads them, and a replay. Drawing them is not captured: generators are
    seeded anew for each update, and the GPU is still at work on the last update meanwhile.
    """

    def __init__(self, agent: Any) -> None:
        self._agent, self._device = agent, agent.context.device
        self._stream = torch.cuda.Stream(self._device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._done = 0  # updates without a graph
        self._batch: type  # of every update
        self._inputs: list[Tensor] = []  # what every update reads, at fixed addresses
        self._metrics: Metrics = {}  # what every replay writes

    def __call__(self, batch: Any, noise: Noise) -> Metrics:
        """As `agent.update`, with metrics that the next call overwrites."""
        fresh = (*vars(batch).values(), *noise)
        if not self._inputs:
            self._batch, self._inputs = type(batch), [torch.empty_like(x) for x in fresh]
        for own, x in zip(self._inputs, fresh, strict=True):
            own.copy_(x)
        if self._done < WARM_UP:
            self._done += 1
            return self._warm_up()
        if self._graph is None:
            self._capture()
        self._graph.replay()
        return self._metrics

    def _update(self) -> Metrics:
        count = len(fields(self._batch))
        batch = self._batch(*self._inputs[:count])
        return self._agent.update(batch, tuple(self._inputs[count:]))

    def _warm_up(self) -> Metrics:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            metrics = self._update()
        current.wait_stream(self._stream)
        return metrics

    def _capture(self) -> None:
        """Record an update without computing it."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.device(self._device), torch.cuda.graph(graph, stream=self._stream):
                self._metrics = self._update()
        except RuntimeError as error:
            raise UserError(
                "an update of this agent cannot be captured as a CUDA graph "
                f"({str(error).splitlines()[0]}); use cudagraphs=false"
            ) from error
        self._graph = graph
