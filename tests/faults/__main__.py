"""Do the harm and write down what was left.

    python -m tests.faults                     everything, full scale: many hours of one core
    python -m tests.faults --scale quick       everything, a little of it
    python -m tests.faults kills-data damage   some parts; the others stay as they were

A stopped kills part goes on with the command that it was at. What a part saw stays in
`output/faults/`, and docs/reliability.md is made of the parts that are there.
"""

import argparse
import dataclasses
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

# Worker processes import this file as well, so what needs torch is imported where it is used.

DOCUMENT = Path("docs/reliability.md")  # of the project's folder


def cpu_seconds() -> float:
    """CPU time of this process and of those that it waited for."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run(name: str, scale: Any, title: str) -> Any:
    """One part, in a folder of its own that is removed afterwards."""
    from tests.faults import report
    from tests.faults.parts import PARTS

    place = Path(tempfile.mkdtemp(prefix=f"faults-{name}-"))
    began, used = time.monotonic(), cpu_seconds()
    try:
        part = PARTS[name](scale, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    minutes, cpu = (time.monotonic() - began) / 60, (cpu_seconds() - used) / 60
    part.about = f"{title}; {minutes:.1f} min, {cpu:.1f} of CPU; {report.machine()}"
    return part


def main() -> None:
    from tests.faults import report
    from tests.faults.parts import PARTS, SCALES

    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--kills", type=int, help="of each command, instead of the scale's")
    parser.add_argument("--jobs", type=int, help="commands to kill at once; one per core")
    options = parser.parse_args()
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"no part is called {unknown[0]}; there are {', '.join(PARTS)}")
    scale, title = SCALES[options.scale], f"scale {options.scale}"
    given = {name: getattr(options, name) for name in ("kills", "jobs") if getattr(options, name)}
    scale = dataclasses.replace(scale, **given)
    lost = 0
    for name in options.parts or PARTS:
        print(f"== {name}", flush=True)
        part = run(name, scale, title)
        results = report.ROOT / report.RESULTS
        report.save(part, results / f"{name}.json")
        print(*report.table(part.tallies), *part.lost, part.about, sep="\n", flush=True)
        lost += len(part.lost)
        known = [results / f"{other}.json" for other in PARTS]
        parts = [report.load(path) for path in known if path.exists()]
        (report.ROOT / DOCUMENT).write_text(report.document(parts), encoding="utf-8")
    raise SystemExit(1 if lost else 0)


if __name__ == "__main__":
    main()
