"""Time of alternatives side by side: ratios hold where absolute figures of a shared machine do not.

Variants take turns, so that whatever else the machine does meets all of them alike; the first
rounds are left out and the median of the others counts.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Work = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Medians of several repetitions.

    Attributes:
        wall: seconds of one repetition. cpu: seconds of processor time of this process, all
            threads; the one to look at where other programs run.
    """

    wall: float
    cpu: float


def compare(
    variants: Mapping[str, Work], repeats: int, warmup: int, device: torch.device | None = None
) -> dict[str, Timing]:
    """Time variants in turns, `warmup` rounds and then `repeats` that count.

    Args:
        device: where they compute; its work is waited for.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for _ in range(warmup + repeats):
        for name, work in variants.items():
            seconds[name].append(stopwatch(work, device))
    return {
        name: Timing(*(statistics.median(column) for column in zip(*rows[warmup:], strict=True)))
        for name, rows in seconds.items()
    }


def stopwatch(work: Work, device: torch.device | None = None) -> tuple[float, float]:
    """Seconds on the wall and of processor time that `work` takes once."""
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    _wait(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def ratios(timings: Mapping[str, Timing], base: str) -> dict[str, float]:
    """How many times faster than `base` each variant is, in processor time."""
    return {name: timings[base].cpu / max(t.cpu, 1e-9) for name, t in timings.items()}


def _wait(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
