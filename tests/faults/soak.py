"""Long runs: memory, open files and threads must not grow, and no process be left.

Numbers are read from /proc of the process; the slope is that of a straight line through the second
half, when everything has been used once.
"""

import contextlib
import os
import subprocess
import time
from pathlib import Path

import numpy as np

from common.settings.config import compose
from envs.make import make_world
from envs.rendering import rendering_problem
from tests.faults import commands
from tests.faults.processes import members, start
from tests.faults.report import Tally

SECONDS = 1.0  # between two looks
# What counts as flat over the second half: growth by a share of the mean, or by less than one file,
# thread or MiB (the pipes to the workers of an evaluation are there while it lasts).
GROWTH = 0.05
ONE = 1.0
COUNTS = ("MiB", "files", "threads")
Look = tuple[float, ...]  # time in seconds, and each of COUNTS then


def look(pid: int) -> Look:
    """Resident memory, open files and threads of a process now."""
    folder = Path(f"/proc/{pid}")
    lines = (folder / "status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    memory = int(status["VmRSS"].split()[0]) / 1024
    files = len(list((folder / "fd").iterdir()))
    return time.monotonic(), memory, files, int(status["Threads"])


def judge(fault: str, looks: list[Look], problem: str = "") -> Tally:
    """Count one try, however long: everything stayed flat and nothing else was a problem."""
    half = np.array(looks[len(looks) // 2 :])
    at, numbers = half[:, 0], half[:, 1:]
    growths = np.polyfit(at - at[0], numbers, 1)[0] * (at[-1] - at[0])
    found = list(zip(COUNTS, numbers.mean(axis=0), growths, strict=True))
    tally = Tally(fault)
    tally.note = ", ".join(f"{name} {mean:.1f} {growth:+.2f}" for name, mean, growth in found)
    tally.note += f" from the middle to the end, {len(looks)} looks"
    grown = [name for name, mean, growth in found if growth > max(GROWTH * mean, ONE)]
    tally.expect(not (grown or problem), f"{problem} grew: {grown}, {tally.note}")
    return tally


def long_training(data: Path, place: Path, updates: int) -> Tally:
    """Evaluations every 500 updates, checkpoints every 200."""
    rhythm = (f"steps={updates}", "log_freq=100", "eval_freq=500", "checkpoint_freq=200")
    own = ("num_eval_episodes=1", "max_episode_steps=5", "save_video=false")
    looks, log = [], place / "train" / "run" / "train.csv"
    process, output = start(commands.training(data, place, *rhythm, "agent=sgiql", *own)), None
    while output is None:
        try:  # its output is read all the time: a full pipe would stop it
            output = process.communicate(timeout=SECONDS)[0]
        except subprocess.TimeoutExpired:
            if log.exists():  # learning has begun
                # Evaluations come and go with their workers: the process itself must not grow.
                with contextlib.suppress(OSError, KeyError):  # it ended meanwhile
                    looks.append(look(process.pid))
    failed = process.returncode or members(process.pid)
    problem = f"it ended with {process.returncode}: {output[-300:]};" if failed else ""
    return judge(f"training for {updates} updates", looks, problem)


def resets(name: str, overrides: tuple[str, ...], count: int) -> Tally:
    """An environment reset and drawn again and again, in this process."""
    env, looks = make_world(compose(overrides)).make(pixels=True), []
    for seed in range(count):
        env.reset(seed=seed, options={"render_goal": True})
        env.step(env.action_space.sample())
        looks.append(look(os.getpid()))
    env.close()
    return judge(f"{name}: {count} resets, each drawn", looks)


def run_all(place: Path, updates: int, count: int) -> list[Tally]:
    tallies = [long_training(commands.make_data(place / "data"), place, updates)]
    tallies.append(resets("Push-Tetris", commands.PIECES, count))
    if rendering_problem() is None:
        cubes = commands.section("env_kwargs.manipobj", num_cubes=1, width=64, height=64)
        tallies.append(resets("cubes", cubes, count))
    return tallies
