"""Time and memory of alternatives side by side, and the tables and files that say them.

Ratios hold where absolute figures of a shared machine do not: variants take turns, so that whatever
else the machine does meets all of them alike, and the median of the rounds counts.
"""

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

from common.foundation.device import describe_device, device_name, resolve_device, set_threads
from common.foundation.errors import UserError
from common.foundation.files import read_json, write_json
from common.foundation.memory import free_memory

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "numpy", "mujoco", "gymnasium", "h5py", "pymunk", "ogbench")

Row = dict[str, str | float | int | None]  # by column; None: not measured
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
    """Speed of each variant against `base`, in processor time."""
    return {name: timings[base].cpu / max(t.cpu, 1e-9) for name, t in timings.items()}


def _wait(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def note_peak(folder: Path) -> None:
    """Write down what this process has taken at most; the last note of a process counts."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    (folder / f"peak-{os.getpid()}").write_text(str(peak))


def largest_peak(folder: Path) -> float:
    """MiB of the largest process that left a note in `folder`."""
    return max(int(path.read_text()) for path in folder.glob("peak-*")) / 2**20


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
    """The machine that figures depend on; `load` tells whether others were at work."""
    return {
        **describe_device(device),
        "cpu": device_name(torch.device("cpu")),
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
    """The whole content of a file that `publish` wrote, and its tables."""
    content = read_json(path)
    if not isinstance(content, dict) or "tables" not in content:
        raise UserError(f"{path} is no result of a benchmark; run benchmarks/run_all.sh")
    return content, [Table(**table) for table in content["tables"]]


def _show(value: str | float | int | None) -> str:
    """A cell: three significant digits of a measured number."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
