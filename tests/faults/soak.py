"""Long runs: memory, open files, threads and processes must not grow.

Numbers are read from /proc of the process and its children; the slope is that of a straight line
through the second half, when everything has been used once.
"""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.settings.config import compose
from envs.make import make_world
from envs.rendering import rendering_problem
from tests.conftest import TINY
from tests.faults.kills import PIECES
from tests.faults.processes import members, start
from tests.faults.report import Tally

SECONDS = 1.0  # between two looks
# What counts as flat over the second half: growth by a share of the mean, or by less than one file,
# thread, process or MiB (the pipes to the workers of an evaluation are there while it lasts).
GROWTH = 0.05
ONE = 1.0
COUNTS = ("MiB", "files", "threads", "processes")


@dataclass
class Look:
    """Resources of a process and its children at one moment."""

    at: float
    numbers: tuple[float, ...]


def look(pids: list[int]) -> tuple[float, ...]:
    """Resident memory in MiB, open files, threads and processes."""
    memory = files = threads = 0.0
    for pid in pids:
        folder = Path(f"/proc/{pid}")
        try:
            lines = (folder / "status").read_text().splitlines()
            status = dict(line.split(":", 1) for line in lines)
            memory += int(status.get("VmRSS", "0 kB").split()[0]) / 1024
            threads += int(status["Threads"])
            files += len(list((folder / "fd").iterdir()))
        except OSError:  # it ended meanwhile
            continue
    return memory, files, threads, float(len(pids))


def slopes(looks: list[Look]) -> dict[str, tuple[float, float]]:
    """Of each number: its mean, and its growth over the second half."""
    half = looks[len(looks) // 2 :]
    at = np.array([one.at for one in half])
    numbers = np.array([one.numbers for one in half])
    rates = np.polyfit(at - at[0], numbers, 1)[0] * (at[-1] - at[0])
    means = numbers.mean(axis=0)
    return dict(zip(COUNTS, zip(means.tolist(), rates.tolist(), strict=True), strict=True))


def judge(fault: str, looks: list[Look], problem: str = "") -> Tally:
    """True if everything stayed flat and nothing else was a problem: one try, however long."""
    tally, found = Tally(fault), slopes(looks)
    tally.note = ", ".join(f"{name} {m:.1f} {g:+.2f}" for name, (m, g) in found.items())
    tally.note += f" from the middle to the end, {len(looks)} looks"
    grown = [name for name, (mean, growth) in found.items() if growth > max(GROWTH * mean, ONE)]
    tally.expect(not (grown or problem), f"{problem} grew: {grown}, {tally.note}")
    return tally


def training(data: Path, place: Path, updates: int) -> Tally:
    """Evaluations every 500 updates, checkpoints every 200."""
    rhythm = (f"steps={updates}", "log_freq=100", "eval_freq=500", "checkpoint_freq=200")
    own = (f"data_dir={data}", f"output_dir={place}", "run_name=soak", "max_episode_steps=5")
    command = ["train.py", *TINY, *rhythm, "agent=sgiql", *own]
    looks, log = [], place / "train" / "soak" / "train.csv"
    process, output = start([*command, "save_video=false"]), None
    while output is None:
        try:  # its output is read all the time: a full pipe would stop it
            output = process.communicate(timeout=SECONDS)[0]
        except subprocess.TimeoutExpired:
            if log.exists():  # learning has begun
                # Evaluations come and go with their workers: the process itself must not grow.
                looks.append(Look(time.monotonic(), look([process.pid])))
    failed = process.returncode or members(process.pid)
    problem = f"it ended with {process.returncode}: {output[-300:]};" if failed else ""
    return judge(f"training for {updates} updates", looks, problem)


def resets(count: int) -> list[Tally]:
    """Environments reset and drawn again and again, in this process."""
    tallies = []
    worlds = {"Push-Tetris": PIECES}
    if rendering_problem() is None:
        sizes = [f"env_kwargs.manipobj.{side}=64" for side in ("width", "height")]
        worlds["cubes"] = ("env_kwargs.manipobj.num_cubes=1", *sizes)
    for name, overrides in worlds.items():
        env, looks = make_world(compose(overrides)).make(pixels=True), []
        for seed in range(count):
            env.reset(seed=seed, options={"render_goal": True})
            env.step(env.action_space.sample())
            pid = int(Path("/proc/self").resolve().name)
            looks.append(Look(time.monotonic(), look([pid])))
        env.close()
        tallies.append(judge(f"{name}: {count} resets, each drawn", looks))
    return tallies
