"""Collects a dataset: scripted policies act in an environment and their episodes are stored.

The content of an episode depends only on (seed, split, index), never on the number of workers, on
where a collection was stopped or on the shard that makes it: each episode seeds its environment and
its policies afresh, and one that its collector rejects is repeated with the next draws of the same
sequence. The workers write their episodes themselves, one file each and chunk by chunk, so memory
stays bounded and a collection that was killed continues where it was.
"""

import platform
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np

from common.foundation.errors import UserError
from common.foundation.jobs import run_jobs
from common.foundation.messages import keeping_warnings
from common.foundation.pool import Patience
from common.foundation.processes import available_cores
from common.foundation.progress import Bar
from common.settings.schema import CollectSettings
from datasets.actions import find_misfit
from datasets.episodes import EpisodeWriter
from datasets.filling import dataset_folder, filling
from datasets.shards import Part
from datasets.source import SPLITS, EpisodeId
from datasets.store import Dataset, describe_columns, episode_path
from envs.base import EpisodeRejected, World

MAX_ATTEMPTS = 100  # of an episode that its collector rejects


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
    patience: Patience = Patience(),  # noqa: B008  a frozen constant
    progress: bool = True,
    command: str = "the same call",
    shard: int = 0,
    num_shards: int = 1,
) -> Path:
    """Collect `episodes` training episodes and a tenth more for validation; return their folder.

    Call from the main thread. Episodes that exist are kept, so a stopped collection continues and a
    finished one returns at once.

    Args:
        workers: processes; 0 = one per core.
        command: for messages, to continue.
        shard: of several shards, the one to collect into a dataset of its own (`datasets.shards`).

    Raises:
        UserError: the folder holds data of other settings, another process collects into it, or an
            episode failed too often. Whole episodes stay.
        SystemExit: SIGINT or SIGTERM came.
    """
    part = Part({"train": episodes, "val": episodes // 10}, shard, num_shards)
    folder = dataset_folder(data_dir, name + part.suffix)
    recipe = EpisodeRecipe(folder, world, settings, seed, pixels, part)
    header = make_header(recipe, command)
    with filling(folder, header) as dataset, keeping_warnings(folder):
        jobs = [EpisodeId(split, index) for split in SPLITS for index in dataset.missing(split)]
        if jobs:
            tasks = [recipe] * min(workers or available_cores(), len(jobs))
            _record(tasks, dataset, jobs, patience, progress)
        else:
            print(f"{folder} is already collected: {dataset.progress()}")
    return folder


def _record(
    tasks: list["EpisodeRecipe"],
    dataset: Dataset,
    jobs: list[EpisodeId],
    patience: Patience,
    progress: bool,
) -> None:
    if len(jobs) < sum(dataset.header["episodes"].values()):
        print(f"{dataset.folder} has {dataset.progress()}: continuing")
    world = tasks[0].world
    total = len(jobs) * world.max_episode_steps
    start = time.monotonic()
    with Bar(total=total, desc=dataset.folder.name, unit="step", disable=not progress) as bar:
        run_jobs(
            tasks,
            jobs,
            bar.update,
            lambda: f"{dataset.progress()} are kept, `{dataset.header['command']}` continues",
            patience,
            in_process=world.in_process and len(tasks) == 1,
        )
    speed = total / (time.monotonic() - start)
    print(f"collected {dataset.progress()}, {total} steps at {speed:.1f} steps/s")


@dataclass(frozen=True)
class EpisodeRecipe:
    """All it takes to make any episode of a dataset (see `common.foundation.pool.Task`)."""

    folder: Path
    world: World
    settings: CollectSettings
    seed: int
    pixels: bool
    part: Part

    def make(self) -> gym.Env:
        """The environment to collect in."""
        return self.world.make(pixels=self.pixels)

    def run(self, env: gym.Env, episode: EpisodeId) -> Generator[int, None, None]:
        """Record an episode to its file; yields the number of rows so far after each step.

        Columns: `actions`, `terminals`, `observations` of the environment, `state_observations`
        (its info `state_obs`); any other is the info of the same name. A row is of the moment
        before its action.
        """
        columns = self.world.dataset_columns(self.pixels)
        names = columns.keys() - {"actions", "terminals"}
        for attempt in range(MAX_ATTEMPTS):
            try:
                with EpisodeWriter(episode_path(self.folder, *episode), columns) as writer:
                    for row in self._rows(env, episode, attempt, names):
                        writer.append(row)
                        yield writer.rows
                return
            except EpisodeRejected as error:
                reason = error
        raise UserError(f"it was rejected {MAX_ATTEMPTS} times, at last because {reason}")

    def _rows(
        self, env: gym.Env, episode: EpisodeId, attempt: int, names: set[str]
    ) -> Iterator[dict[str, Any]]:
        """The rows of an episode; of a rejected one, with the draws of the next `attempt`."""
        split, index = episode
        number = self.part.range(split)[index]
        sequence = np.random.SeedSequence([self.seed, SPLITS.index(split), number])
        env_seed, policy_seed = sequence.spawn(2 * attempt + 2)[-2:]
        observation, info = env.reset(seed=int(env_seed.generate_state(1)[0]))
        collector = self.world.collector(env, self.settings)
        collector.reset(observation, info, np.random.default_rng(policy_seed))
        done, actions = False, []
        while not done:
            row = {name: _value(name, observation, info) for name in names}
            row["actions"] = collector.act(info)
            observation, _, terminated, truncated, info = env.step(row["actions"])
            collector.observe(observation, info)
            done = terminated or truncated
            actions.append(row["actions"])
            yield row | {"terminals": np.bool_(done)}
        misfit = find_misfit([np.stack(actions)], self.world.actions)
        if misfit and not misfit.slight:
            raise UserError(misfit.text)


def _value(column: str, observation: Any, info: Mapping[str, Any]) -> Any:
    if column == "observations":
        return observation
    return info["state_obs" if column == "state_observations" else column]


def make_header(recipe: EpisodeRecipe, command: str) -> dict[str, Any]:
    """Header of a collected dataset (keys: see `Dataset`)."""
    world, columns = recipe.world.describe(), recipe.world.dataset_columns(recipe.pixels)
    return {
        "command": command,
        **world,
        "collection": asdict(recipe.settings),
        "seed": recipe.seed,
        "episodes": recipe.part.own,
        **recipe.part.header(),
        "pixels": recipe.pixels,
        "columns": describe_columns(columns),
        "qpos_layout": recipe.world.qpos_layout(),
        "versions": world["versions"]
        | {"python": platform.python_version(), "h5py": h5py.__version__},
    }
