"""Time of a batch against the number of rows, the length of episodes and the kind of row.

    python -m benchmarks.sample
    python -m benchmarks.sample --rows 10000 100000

`plain` gathers whole episodes (`tests.plain.sampling`). Row counts that take more memory than
`--gib` are left out.
"""

import argparse
import math

import torch

from benchmarks.measure import Row, Table, arguments, compare, publish
from benchmarks.subjects import SUBJECTS, made_up
from common.data.buffer import Buffer
from common.foundation.device import resolve_device
from common.foundation.errors import one_line_errors
from tests.plain import sampling as plain_sampling

KINDS = {"state": "sgiql-3-cubes", "DLP 2 x 20": "sgiql-dlp-2"}


def measure(options: argparse.Namespace, device: torch.device) -> list[Table]:
    table = Table(f"Milliseconds of a batch of {options.batch}")
    for kind, name in KINDS.items():
        spec = SUBJECTS[name].spec
        for length in options.lengths:
            for rows in options.rows:
                if rows * math.prod(spec.shape) * 4 <= options.gib * 2**30:
                    buffer = made_up(spec, rows, length, device)
                    table.rows.append(_row(kind, buffer, length, options, device))
    return [table]


def _row(
    kind: str, buffer: Buffer, length: int, options: argparse.Namespace, device: torch.device
) -> Row:
    generator = torch.Generator(device).manual_seed(0)
    variants = {"fast": lambda: buffer.sample(options.batch, generator)}
    if device.type == "cpu":
        variants["plain"] = lambda: plain_sampling.sample(buffer, options.batch, generator)
    times = compare(variants, options.repeats, warmup=3, device=device)
    plain = times.get("plain")
    return {
        "rows of": kind,
        "rows": len(buffer),
        "episode length": length,
        "batches/s": 1 / times["fast"].wall,
        "ms": times["fast"].wall * 1e3,
        "CPU ms": times["fast"].cpu * 1e3,
        "plain, CPU ms": plain and plain.cpu * 1e3,
        "speed-up": plain and plain.cpu / times["fast"].cpu,
    }


def main() -> None:
    options = arguments(
        __doc__,
        batch={"type": int, "default": 512, "help": "transitions"},
        rows={"type": int, "nargs": "+", "default": [10_000, 100_000, 1_000_000, 3_000_000]},
        lengths={"type": int, "nargs": "+", "default": [100, 400, 1000]},
        gib={"type": float, "default": 1.0, "help": "largest buffer"},
    )
    publish("sample", options, measure(options, resolve_device(options.device)))


if __name__ == "__main__":
    with one_line_errors():
        main()
