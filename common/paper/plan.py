"""Data, trainings and evaluations that a table of the paper still lacks, as jobs."""

import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.foundation.files import read_json
from common.paper.comparison import RANDOM, TABLES
from common.paper.experiments import COMMANDS, Scale, as_overrides, names, settings
from common.paper.jobs import Job
from common.runs.curves import read_csv
from common.runs.folders import dotted, run_path
from common.runs.identity import compare, dataset_source, is_current, recorded
from common.settings.config import Config, compose
from common.settings.inherit import LOCAL
from datasets.npz_dataset import open_dataset
from envs.make import make_world

LOG_NAME = 200  # characters
# Settings that do not change what an evaluation finds.
NO_INFLUENCE = {*LOCAL, "eval_checkpoint", "data_dir", "num_eval_envs", "save_video"}
NO_INFLUENCE |= {"num_video_episodes", "video_frame_skip"}
Task = tuple[str, str, str]  # script, name, checkpoint that is evaluated


@dataclass(frozen=True)
class Plan:
    """The way to a table at a scale; what is there already is left out.

    Attributes:
        launcher: arguments for Hydra that submit jobs to a cluster; then one job stands for all
            seeds of a name.
    """

    table: str
    scale: Scale
    launcher: Sequence[str] = ()

    def figures(self) -> list[str]:
        """The names of eval.sh that the table shows."""
        known, layout = names("eval"), TABLES[self.table]
        variants = [RANDOM, "changed-entities", *self.scale.ablations, *self.scale.other_numbers]
        shown = [variant for variant in variants if layout.shows(variant)]
        found = []
        for cell in map("/".join, itertools.product(self.scale.experiments, self.scale.agents)):
            special = [f"{cell}/{v}" for v in shown if f"{cell}/{v}" in known]
            as_trained = layout.shows("") or (layout.with_trained and special)
            found += [cell] * (bool(as_trained) and cell in known) + special
        return found

    def trained(self) -> list[str]:
        """The names of train.sh that make the agents of these figures."""
        return list(dict.fromkeys("/".join(name.split("/")[:2]) for name in self.figures()))

    def preparations(self) -> list[Job]:
        """Bring datasets and encoders that are missing."""
        found = {}
        for config in (self._config("train", name) for name in self.trained()):
            for title, command in (*self._data(config), *_encoder(config)):
                found[title] = Job(title, command, self._log(title))
        return list(found.values())

    def trainings(self) -> list[Job]:
        """Trainings without their last evaluation; all agents of a seed before the next seed.

        Raises `UserError` if the dataset of one that is finished has become another one.
        """
        tasks, known = [], {}
        for seed, name in itertools.product(self.scale.seeds, self.trained()):
            config = self._config("train", name, seed)
            evaluated = read_csv(run_path(config) / "eval.csv").get("step", [0])
            if evaluated[-1] < config.steps:
                tasks.append((("train", name, ""), seed))
            elif self._is_there(config):
                _check_data(config, known)
        return self._jobs(tasks)

    def evaluations(self) -> list[Job]:
        """Evaluations that were not made of the agent as it is now, with these settings.

        Those of the main table are of the `best` checkpoint, too.
        """
        tasks = []
        made = _results(Path(self.scale.output_dir) / "eval")
        checkpoints = ("last", "best") if self.table == "main" else ("last",)
        for seed, name, which in itertools.product(self.scale.seeds, self.figures(), checkpoints):
            config = self._config("eval", name, seed)
            trained = Path(config.eval_checkpoint) / f"{which}.safetensors"
            found = made.get((config.eval_variant_name, which, seed), ())
            asked = self._asked(name, config)
            if not any(_holds(*results, trained, asked) for results in found):
                tasks.append((("eval", name, which), seed))
        return self._jobs(tasks)

    def _line(self, script: str, name: str) -> list[str]:
        return [*as_overrides(settings(script, name)), *self.scale.overrides(script, name)]

    def _config(self, script: str, name: str, seed: int = 0) -> Config:
        return compose([*self._line(script, name), f"seed={seed}"])

    def _asked(self, name: str, config: Config) -> dict[str, Any]:
        """The settings that an evaluation's command gives, but for those without influence."""
        values = dotted(json.loads(json.dumps(config.raw)))
        keys = {text.partition("=")[0] for text in self._line("eval", name)}
        return {key: values[key] for key in keys - NO_INFLUENCE}

    def _jobs(self, tasks: Sequence[tuple[Task, int]]) -> list[Job]:
        """A job for each task and seed, or on a cluster one for all seeds of a task."""
        seeds: dict[tuple[Task, int | None], list[str]] = {}
        for task, seed in tasks:
            group = task, None if self.launcher else seed
            seeds.setdefault(group, []).append(str(seed))
        return [self._job(task, ",".join(own)) for (task, _), own in seeds.items()]

    def _job(self, task: Task, seeds: str) -> Job:
        script, name, which = task
        title = f"{script} {name}{f' {which}' if which else ''} seed {seeds}"
        command = ["bash", str(COMMANDS / f"{script}.sh"), name]
        command += self.scale.overrides(script, name)
        if which:
            run = settings(script, name)["eval_checkpoint"]
            command.append(f"eval_checkpoint={run}/{which}.safetensors")
        return Job(title, [*command, f"seed={seeds}", *self.launcher], self._log(title))

    def _log(self, title: str) -> Path:
        name = title.replace("/", "_").replace(" ", "_")[:LOG_NAME]  # seeds may be hundreds
        return Path(self.scale.output_dir) / "logs" / f"{name}.log"

    def _is_there(self, config: Config) -> bool:
        """True of a training's dataset that is complete, and of agents that make their own."""
        if config.train_dataset_name is None:
            return True
        place = Path(self.scale.data_dir) / config.train_dataset_name
        header = place / "header.json"
        complete = header.is_file() and read_json(header)["complete"]
        return complete or place.with_name(f"{place.name}.npz").exists()

    def _data(self, config: Config) -> Iterator[tuple[str, list[str]]]:
        """Name and command of what brings a training's dataset, if it is not there."""
        from datasets.download_datasets import DATASETS

        data, folder = config.train_dataset_name, Path(self.scale.data_dir)
        if self._is_there(config):
            return
        archive = f"{data}.npz"
        published = [name for name, files in DATASETS.entries.items() if archive in files]
        if self.scale.download and published:
            module = [sys.executable, "-m", "datasets.download_datasets", *published]
            yield f"download {published[0]}", [*module, "--folder", str(folder)]
            return
        for name in names("collect"):
            if settings("collect", name)["dataset_name"] == data:
                command = ["bash", str(COMMANDS / "collect.sh"), name]
                yield f"collect {name}", [*command, *self.scale.overrides("collect", name)]


def _encoder(config: Config) -> Iterator[tuple[str, list[str]]]:
    """Name and command of the download of a training's published encoder, if it is not there."""
    from visual_encoders.download_chkpts import ENCODERS

    path = Path(config.rep_model_checkpoint or "")
    if path.parent == ENCODERS.folder and not path.exists():
        module = [sys.executable, "-m", "visual_encoders.download_chkpts"]
        yield f"download {path.name}", [*module, path.name]


Results = tuple[dict[str, Any], int]  # metrics.json of an evaluation, its time in nanoseconds


def _results(folder: Path) -> dict[tuple[str, str, int], list[Results]]:
    """Results of all evaluations by (variant name, checkpoint, seed)."""
    found: dict[tuple[str, str, int], list[Results]] = {}
    for file in folder.glob("*/metrics.json"):
        metrics = read_json(file)
        settings, checkpoint = metrics["settings"], Path(metrics["checkpoint"]).stem
        key = settings["eval_variant_name"], checkpoint, settings["seed"]
        found.setdefault(key, []).append((metrics, file.stat().st_mtime_ns))
    return found


def _holds(
    metrics: Mapping[str, Any], written: int, checkpoint: Path, asked: Mapping[str, Any]
) -> bool:
    """True of results of this very checkpoint with the settings `asked` for.

    Those of earlier versions do not say of which one they are: they must be newer than it.
    """
    if "checkpoint_checksum" not in metrics:
        return written >= checkpoint.stat().st_mtime_ns
    found = dotted(metrics["settings"])
    same = all(found.get(key) == value for key, value in asked.items())
    return same and is_current(metrics, checkpoint)


def _check_data(config: Config, known: dict[Any, dict[str, Any]]) -> None:
    """Raise `UserError` if the dataset of a finished training has become another one.

    Args:
        known: datasets that were looked at before, to which this one is added.
    """
    run, name, div = run_path(config), config.train_dataset_name, config.train_dataset_div
    before = (recorded(run) or {}).get("dataset")
    if before is None:
        return
    key = config.task, name, div, *before["columns"]
    if key not in known:
        dataset = open_dataset(config.data_dir, name, make_world(config))
        known[key] = dataset_source(dataset, before["columns"], div=div)
    compare(run, {"dataset": known[key]}, config.allow_changed_data)
