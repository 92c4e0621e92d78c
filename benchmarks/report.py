"""What all benchmarks share: their arguments, the machine's description, tables, the JSON file."""

import argparse
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from common.device import describe_device, resolve_device, set_threads
from common.errors import UserError
from common.files import read_json, write_json
from common.memory import free_memory

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
