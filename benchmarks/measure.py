"""Time, memory and operations of alternatives side by side, and reports of them."""

import argparse
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from common.foundation.device import describe_device, resolve_device, set_threads
from common.foundation.errors import UserError
from common.foundation.files import read_json, write_json
from common.foundation.memory import free_memory


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


def note_peak(folder: Path) -> None:
    """Write down what this process has taken at most; the last note of a process counts."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    (folder / f"peak-{os.getpid()}").write_text(str(peak))


def largest_peak(folder: Path) -> float:
    """MiB of the largest process that left a note in `folder`."""
    return max(int(path.read_text()) for path in folder.glob("peak-*")) / 2**20


RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "numpy", "mujoco", "gymnasium", "h5py", "pymunk", "ogbench")

Row = dict[str, str | float | int | None]  # by column; None: not measured


@dataclass(frozen=True)
class Table:
    """Rows with the same columns; a column's name has its unit."""

    title: str
    rows: list[Row] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The table in Markdown."""
        columns = list(self.rows[0])
        cells = [[_show(row[column]) for column in columns] for row in self.rows]
        lines = [columns, ["---"] * len(columns), *cells]
        return [f"| {' | '.join(line)} |" for line in lines]


def arguments(description: str | None, **extra: Mapping[str, Any]) -> argparse.Namespace:
    """Parse a benchmark's command line: what all have, and `extra` options by their names."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=0, help="of this process; 0 = one per core")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions that count")
    for name, options in extra.items():
        parser.add_argument(f"--{name}", **options)
    parsed = parser.parse_args()
    set_threads(parsed.threads)
    return parsed


def machine(device: torch.device) -> dict[str, Any]:
    """What figures depend on besides the code; `load` tells whether others were at work."""
    return {
        **describe_device(device),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_free_gib": round(free_memory(torch.device("cpu")) / 2**30, 1),
        "load": [round(x, 2) for x in os.getloadavg()],
        "system": platform.system(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
    }


def publish(name: str, options: argparse.Namespace, tables: Sequence[Table]) -> Path:
    """Print the tables, write them to NAME.json, and return its path."""
    for table in tables:
        print(f"\n{table.title}\n", *table.lines(), sep="\n")
    device = resolve_device(options.device)
    given = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{name}.json"
    content = {
        "benchmark": name,
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": machine(device),
        "configuration": {k: v for k, v in given.items() if k != "out"},
        "tables": [asdict(table) for table in tables],
    }
    write_json(path, content)
    print(f"\nwritten: {path}")
    return path


def read(path: Path) -> tuple[dict[str, Any], list[Table]]:
    """What `publish` wrote: the whole content, and its tables."""
    content = read_json(path)
    if not isinstance(content, dict) or "tables" not in content:
        raise UserError(f"{path} is no result of a benchmark; run benchmarks/run_all.sh")
    return content, [Table(**table) for table in content["tables"]]


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _show(value: str | float | int | None) -> str:
    """A cell: three significant digits of a measured number."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


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
