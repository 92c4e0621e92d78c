"""Free memory: the machine's and that of control groups."""

from pathlib import Path

import pytest
import torch

from common.foundation import memory

CPU = torch.device("cpu")


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Writes files of a made-up system of 100 kB free memory, in control groups as given."""
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    meminfo = "MemTotal:  900 kB\nMemFree:  10 kB\nMemAvailable:  100 kB\nHugePages_Total:  0\n"
    (tmp_path / "proc" / "meminfo").write_text(meminfo)

    def group(path: str, **files: str) -> None:
        folder = tmp_path / "groups" / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_text(content)

    def member(lines: str) -> None:
        Path(tmp_path / "proc" / "self" / "cgroup").write_text(lines)

    return group, member


def test_without_groups_the_machine_counts(system):
    assert memory.free_memory(CPU) == 100 * 1024


def test_the_tightest_group_counts_and_unneeded_pages_are_free(system):
    group, member = system
    member("0::/jobs/mine\n")
    group("jobs/mine", memory__max="max\n", memory__current="1\n")
    stat = "anon 7000\ninactive_file 3000\n"
    group("jobs", memory__max="50000\n", memory__current="10000\n", memory__stat=stat)
    assert memory.free_memory(CPU) == 50000 - 10000 + 3000
    group("jobs", memory__current="60000\n")
    assert memory.free_memory(CPU) == 0


def test_groups_of_the_first_version_of_linux(system):
    group, member = system
    member("9:name=systemd:/x\n4:memory:/outside\n0::/\n")  # a container sees its own group only
    group(
        "memory",
        memory__limit_in_bytes="4096\n",
        memory__usage_in_bytes="1000\n",
        memory__stat="cache 500\ntotal_inactive_file 96\n",
    )
    assert memory.free_memory(CPU) == 4096 - 1000 + 96


def test_this_machine_has_some():
    assert memory.free_memory(CPU) > 2**20
