"""Collects a dataset: scripted policies act in an environment and their episodes are stored.

What an episode holds depends only on (seed, split, index), never on the number of workers or on
where a collection was stopped: each episode seeds its environment and its policies afresh. The
workers write their episodes themselves, one file each and chunk by chunk, so memory stays bounded
and a collection that was killed continues where it was.
"""

import contextlib
import fcntl
import json
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
from tqdm import tqdm

from common.errors import UserError
from common.files import write_json
from common.processes import available_cores
from datasets.store import (
    FORMAT,
    FORMAT_VERSION,
    HEADER,
    SPLITS,
    Dataset,
    EpisodeWriter,
    episode_path,
    read_header,
)
from datasets.workers import Job, Stopped, run_jobs
from envs.base import CollectSettings, World


def collect(
    world: World,
    *,
    name: str,
    data_dir: str | Path,
    episodes: int,
    seed: int,
    settings: CollectSettings,
    pixels: bool,
    workers: int,
    progress: bool = True,
    command: str = "the same call",
) -> Path:
    """Collect `episodes` training episodes and a tenth more for validation; return their folder.

    Call from the main thread. `workers` 0 means one process per core. `command` is what a user runs
    to continue. Episodes that exist are kept, so a stopped collection continues and a finished one
    returns at once. Raises UserError if the folder holds data of other settings, if another process
    collects into it, or if a worker fails; SystemExit on SIGINT and SIGTERM. Whole episodes stay.
    """
    if name in ("", "..") or Path(name).name != name:
        raise UserError(f"dataset_name={name} must be a plain folder name")
    folder = Path(data_dir) / name
    recipe = EpisodeRecipe(folder, world, settings, seed, pixels)
    header = make_header(recipe, episodes, command)
    try:
        for split in SPLITS:
            (folder / split).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error
    with _exclusive(folder):
        dataset = _prepare(folder, header)
        jobs = [(split, index) for split in SPLITS for index in dataset.missing(split)]
        if jobs:
            _collect_missing(recipe, dataset, jobs, workers or available_cores(), progress)
        else:
            print(f"{folder} is already collected: {dataset.progress()}")
        _finish(dataset)
    return folder


@dataclass(frozen=True)
class EpisodeRecipe:
    """All it takes to make any episode of a dataset (see `datasets.workers.Recipe`)."""

    folder: Path
    world: World
    settings: CollectSettings
    seed: int
    pixels: bool

    def make(self) -> gym.Env:
        """The environment to collect in."""
        return self.world.make(pixels=self.pixels)

    def record(self, env: gym.Env, job: Job) -> Iterator[int]:
        """Record episode `job` to its file; yields the number of rows so far after each step.

        Columns: `actions`, `terminals`, `observations` (what the environment observes),
        `state_observations` (its info `state_obs`); any other is the info of the same name. A row
        is of the moment before its action.
        """
        columns = self.world.dataset_columns(self.pixels)
        path = episode_path(self.folder, *job)
        with EpisodeWriter(path, columns) as writer:
            for row in self._rows(env, job, columns.keys() - {"actions", "terminals"}):
                writer.append(row)
                yield writer.rows

    def _rows(self, env: gym.Env, job: Job, names: set[str]) -> Iterator[dict[str, Any]]:
        split, index = job
        sequence = np.random.SeedSequence([self.seed, SPLITS.index(split), index])
        env_seed, policy_seed = sequence.spawn(2)
        observation, info = env.reset(seed=int(env_seed.generate_state(1)[0]))
        collector = self.world.collector(env, self.settings)
        collector.reset(observation, info, np.random.default_rng(policy_seed))
        done = False
        while not done:
            row = {name: _value(name, observation, info) for name in names}
            row["actions"] = collector.act(info)
            observation, _, terminated, truncated, info = env.step(row["actions"])
            collector.observe(observation, info)
            done = terminated or truncated
            yield row | {"terminals": np.bool_(done)}


def _value(column: str, observation: Any, info: Mapping[str, Any]) -> Any:
    if column == "observations":
        return observation
    return info["state_obs" if column == "state_observations" else column]


def make_header(recipe: EpisodeRecipe, episodes: int, command: str) -> dict[str, Any]:
    """The header of a dataset that is about to be collected (keys: see `Dataset`)."""
    world, columns = recipe.world.describe(), recipe.world.dataset_columns(recipe.pixels)
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": recipe.folder.name,
        "command": command,
        "complete": False,
        **world,
        "collection": asdict(recipe.settings),
        "seed": recipe.seed,
        "episodes": {"train": episodes, "val": episodes // 10},
        "pixels": recipe.pixels,
        "columns": {
            column: {"shape": list(shape), "dtype": np.dtype(dtype).name}
            for column, (shape, dtype) in columns.items()
        },
        "qpos_layout": recipe.world.qpos_layout(),
        "versions": world["versions"]
        | {"python": platform.python_version(), "h5py": h5py.__version__},
    }
    return json.loads(json.dumps(header))  # as it reads back: tuples are lists


def _prepare(folder: Path, header: dict[str, Any]) -> Dataset:
    """The dataset to fill: the one in `folder` if its settings agree, else a new one."""
    for leftover in folder.glob("*/.*.tmp"):
        leftover.unlink(missing_ok=True)
    if not (folder / HEADER).exists():
        write_json(folder / HEADER, header)
        return Dataset(folder, header)
    dataset = Dataset(folder, read_header(folder))
    # What does not decide the data, or is known only at the end; the simulator's versions matter
    # as long as something is left to simulate.
    ignored = {"command", "complete", "rows", "versions.python", "versions.h5py"}
    if not header["pixels"]:
        ignored.add("multiview")
    if not any(dataset.missing(split) for split in SPLITS):
        ignored.add("versions")
    difference = _difference(dataset.header, header, ignored)
    if difference:
        key, have, want = difference
        raise UserError(
            f"{folder} was collected with {key}={have}, not {want}; choose another dataset_name "
            "or delete the folder"
        )
    return dataset


def _difference(
    have: Mapping[str, Any], want: Mapping[str, Any], ignored: set[str], path: str = ""
) -> tuple[str, Any, Any] | None:
    """First key (dotted) whose values differ, with both values; None stands for a missing one."""
    for key in [*want, *(key for key in have if key not in want)]:
        a, b, name = have.get(key), want.get(key), path + key
        if name in ignored or a == b:
            continue
        if not (isinstance(a, dict) and isinstance(b, dict)):
            return name, a, b
        found = _difference(a, b, ignored, f"{name}.")
        if found:
            return found
    return None


def _collect_missing(
    recipe: EpisodeRecipe, dataset: Dataset, jobs: list[Job], workers: int, progress: bool
) -> None:
    if len(jobs) < sum(dataset.header["episodes"].values()):
        print(f"{dataset.folder} has {dataset.progress()}: continuing")
    command = dataset.header["command"]
    total = len(jobs) * recipe.world.max_episode_steps
    start = time.monotonic()
    with tqdm(total=total, desc=dataset.folder.name, unit="step", disable=not progress) as bar:
        try:
            run_jobs(recipe, jobs, min(workers, len(jobs)), bar.update)
        except UserError as error:
            kept = f"{dataset.progress()} are kept, `{command}` continues"
            raise UserError(f"{error}; {kept}") from error
        except Stopped as stop:
            bar.close()
            print(f"stopped by {stop}: {dataset.progress()} are kept, `{command}` continues")
            raise SystemExit(128 + stop.number) from None
    speed = total / (time.monotonic() - start)
    print(f"collected {dataset.progress()}, {total} steps at {speed:.1f} steps/s")


def _finish(dataset: Dataset) -> None:
    if not dataset.header["complete"]:
        rows = {split: int(dataset.lengths(split).sum()) for split in SPLITS}
        write_json(dataset.folder / HEADER, dataset.header | {"complete": True, "rows": rows})


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system releases it when the process ends, however it ends."""
    with open(folder / ".lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process is collecting into {folder}") from error
        yield
