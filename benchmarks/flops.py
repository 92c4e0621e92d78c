"""Floating-point operations of a piece of work, and what the machine's matrix products reach."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.timing import compare


class _Counter(TorchDispatchMode):
    """torch's own counts of matrix products and convolutions; elementwise work is left out.

    Not torch's `FlopCounterMode`, which follows modules and fails on views made without gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def count_flops(work: Callable[[], object]) -> int:
    """Operations of the matrix products of `work`, a product of sum counting two."""
    with _Counter() as counter:
        work()
    return counter.total


def matmul_peak(device: torch.device, size: int, repeats: int) -> float:
    """Operations per second of float32 products of two square matrices of this size."""
    a, b = torch.randn(2, size, size, device=device)
    timing = compare({"product": lambda: a @ b}, repeats, warmup=2, device=device)["product"]
    return 2 * size**3 / timing.wall
