"""Memory that is free to fill."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class _Layout:
    """Files of a control group, and the entry of `memory.stat` that counts unneeded pages."""

    limit: str
    used: str
    droppable: str


LAYOUTS = {  # by what /proc/self/cgroup calls them: the second version of Linux, and the first
    "": _Layout("memory.max", "memory.current", "inactive_file"),
    "memory": _Layout("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_memory(device: torch.device) -> int:
    """Bytes that can be filled on `device` now; of main memory, without swapping.

    Main memory is limited by the machine and by the process's control groups (containers, batch
    systems). Where a system does not say what is free (macOS), all its memory counts.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min([_machine(), *_groups()])


def _machine() -> int:
    table = PROC / "meminfo"
    if table.exists():
        return _table(table, ":")["MemAvailable"] * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _groups() -> Iterator[int]:
    """Bytes left to each control group of the process that limits memory."""
    own = PROC / "self" / "cgroup"
    for entry in own.read_text().splitlines() if own.exists() else []:
        _, controllers, path = entry.split(":", 2)
        if controllers in LAYOUTS:
            layout = LAYOUTS[controllers]
            folder = GROUPS / controllers / path.strip("/")
            for group in (folder, *folder.parents):
                yield from _left(group, layout)


def _left(group: Path, layout: _Layout) -> Iterator[int]:
    limit = group / layout.limit
    if limit.exists() and limit.read_text().strip() != "max":
        # Pages of files that were read count as used, but make room when it is needed.
        droppable = _table(group / "memory.stat", " ")[layout.droppable]
        used = int((group / layout.used).read_text()) - droppable
        yield max(int(limit.read_text()) - used, 0)


def _table(path: Path, separator: str) -> dict[str, int]:
    """Lines such as `MemAvailable:   1234 kB` or `inactive_file 1234` as a dictionary."""
    pairs = (line.split(separator, 1) for line in path.read_text().splitlines())
    return {name: int(rest.split()[0]) for name, rest in pairs}
