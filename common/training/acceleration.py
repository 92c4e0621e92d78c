"""Faster updates: losses compiled or in bfloat16, CUDA graphs, TF32.

All wrap an agent from outside; its eager code in float32 stays the reference. Compiled and captured
updates equal it up to rounding, those of `autocast` and `tf32` within the precision of their
products. Compiled losses in graphs of eight updates with TF32 trained EC-SGIQL on an H200; bfloat16
was run on CPU only so far. `tests/common/training/test_cuda.py` compares compiled and
captured updates with eager ones where there is a GPU; it has not run to its end on one yet.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from agents.base import Metrics
from common.data.batches import Tree
from common.foundation.errors import UserError

WARM_UP = 3  # updates before capturing, as torch's documentation has it


@dataclass(frozen=True)
class Acceleration:
    """Choice of what makes updates faster.

    Attributes:
        compile: whether losses are compiled. cudagraphs: whether updates are captured.
        autocast: whether the losses' matrix products are in bfloat16. tf32: or in TF32.
        notes: a line each.
    """

    compile: bool = False
    cudagraphs: bool = False
    autocast: bool = False
    tf32: bool = False
    notes: tuple[str, ...] = ()

    def apply(self, agent: Any) -> None:
        """Change how `agent` computes its losses, and how this process multiplies matrices."""
        if self.tf32:
            torch.set_float32_matmul_precision("high")
        if self.autocast:
            autocast_losses(agent)
        if self.compile:
            compile_losses(agent)


EAGER = Acceleration()


def autocast_losses(agent: Any) -> None:
    """Let an agent's losses be computed with matrix products in bfloat16.

    Weights, their gradients, Adam, and the outputs of V, Q and policies stay float32.
    """
    kind = agent.context.device.type
    _wrap_losses(agent, lambda loss: _autocast(loss, kind))


def _autocast(loss: Callable[..., Any], kind: str) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        # Without torch's cache of rounded weights, which a captured update must not share.
        with torch.autocast(kind, torch.bfloat16, cache_enabled=False):
            return loss(*arguments)

    return call


def compile_losses(agent: Any, backend: str = "inductor") -> None:
    """Let an agent's losses be compiled when they are first computed; `update` then uses them.

    Nothing falls back to eager code: what cannot be compiled in one piece is an error, and so is
    a loss that would have to be compiled a second time.
    """
    _wrap_losses(agent, lambda loss: _compiled(loss, backend))


def _wrap_losses(agent: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Losses are all its work but for the optimiser, a handful of operations on flat tensors.

    Acting stays as it is, since its number of rows varies.
    """
    for name in agent.losses:
        setattr(agent, name, wrap(getattr(agent, name)))


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
        self._agent = agent
        self._stream = torch.cuda.Stream(agent.context.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._done = 0  # updates without a graph
        self._inputs: tuple[Tree, ...] = ()  # what every update reads, at fixed addresses
        self._metrics: Metrics = {}  # what every replay writes

    def __call__(self, batch: Tree, noise: Tree) -> Metrics:
        """As `agent.update`, with metrics that the next call overwrites."""
        if not self._inputs:
            self._inputs = batch.clone(), noise.clone()
        for own, fresh in zip(self._inputs, (batch, noise), strict=True):
            own.copy_(fresh)
        if self._done < WARM_UP:
            self._done += 1
            return aside(self._stream, self._update)
        if self._graph is None:
            self._graph, self._metrics = capture(self._stream, self._update)
        self._graph.replay()
        return self._metrics

    def _update(self) -> Metrics:
        return self._agent.update(*self._inputs)


def aside(stream: Any, work: Callable[[], Any]) -> Any:
    """Do `work` on another CUDA stream, in its place among what the current one does."""
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        result = work()
    current.wait_stream(stream)
    return result


def capture(
    stream: Any, work: Callable[[], Any], generators: Sequence[torch.Generator] = ()
) -> tuple[Any, Any]:
    """Record `work` as a CUDA graph without computing it: the graph, and what `work` returned.

    Args:
        generators: what it draws from; a replay draws what they have been seeded for meanwhile.
    """
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    try:
        # Another thread may fetch a batch meanwhile, which is no part of the graph.
        recording = torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")
        with torch.cuda.device(stream.device), recording:
            result = work()
    except RuntimeError as error:
        raise UserError(
            "an update of this agent cannot be captured as a CUDA graph "
            f"({str(error).splitlines()[0]}); use updates_per_graph=1, or else cudagraphs=false"
        ) from error
    return graph, result
