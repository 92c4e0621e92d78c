"""What a table of the paper still needs: data, trainings, evaluations, as jobs."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.foundation.files import read_json
from common.paper.comparison import RANDOM, TABLES
from common.paper.experiments import COMMANDS, Scale, read_lines
from common.paper.jobs import Job
from common.runs.curves import read_csv
from common.runs.folders import run_path
from common.settings.config import Config, compose

CHECKPOINTS = {"last": "last.safetensors", "best": "best.safetensors"}


@dataclass(frozen=True)
class Task:
    """A line of train.sh or eval.sh with what is appended to it, for one seed."""

    script: str
    line: str
    overrides: tuple[str, ...]
    seed: int
    note: str = ""  # for people


@dataclass(frozen=True)
class Plan:
    """What a table needs at a scale; what is there already is left out.

    Attributes:
        launcher: arguments for Hydra that submit jobs to a cluster; then one job stands for all
            seeds of a line.
    """

    table: str
    scale: Scale
    launcher: Sequence[str] = ()

    def figures(self) -> list[str]:
        """The lines of eval.sh that the table shows."""
        known, layout = read_lines("eval"), TABLES[self.table]
        variants = [RANDOM, "changed-entities", *self.scale.ablations, *self.scale.other_numbers]
        shown = [variant for variant in variants if layout.shows(variant)]
        found = []
        for cell in map("/".join, itertools.product(self.scale.experiments, self.scale.agents)):
            special = [f"{cell}/{v}" for v in shown if f"{cell}/{v}" in known]
            as_trained = layout.shows("") or (layout.with_trained and special)
            found += [cell] * (bool(as_trained) and cell in known) + special
        return found

    def trained(self) -> list[str]:
        """The lines of train.sh that make the agents of these figures."""
        return list(dict.fromkeys(_agent(figure) for figure in self.figures()))

    def preparations(self) -> list[Job]:
        """Bring datasets and encoders that are missing."""
        lines, found = read_lines("train"), {}
        for name in self.trained():
            config = compose([*lines[name], *self.scale.overrides("train", name, lines[name])])
            for title, command in (*self._data(config), *_encoder(config)):
                found[title] = Job(title, command, self._log(title))
        return list(found.values())

    def trainings(self) -> list[Job]:
        """Trainings without their last evaluation; all agents of a seed before the next seed."""
        lines, tasks = read_lines("train"), []
        for seed, name in itertools.product(self.scale.seeds, self.trained()):
            overrides = self.scale.overrides("train", name, lines[name])
            config = compose([*lines[name], *overrides, f"seed={seed}"])
            evaluated = read_csv(run_path(config) / "eval.csv").get("step", [0])
            if evaluated[-1] < config.steps:
                tasks.append(Task("train", name, tuple(overrides), seed))
        return self._jobs(tasks)

    def evaluations(self) -> list[Job]:
        """Evaluations that were not made since the agent was trained.

        Those of the main table are of the `best` checkpoint, too.
        """
        lines, tasks = read_lines("eval"), []
        done = _evaluated(Path(self.scale.output_dir) / "eval")
        checkpoints = ("last", "best") if self.table == "main" else ("last",)
        for seed, name, which in itertools.product(self.scale.seeds, self.figures(), checkpoints):
            overrides = self.scale.overrides("eval", name, lines[name])
            config = compose([*lines[name], *overrides, f"seed={seed}"])
            trained = Path(config.eval_checkpoint) / CHECKPOINTS[which]
            when = done.get((config.eval_variant_name, which, seed), 0)
            if when < trained.stat().st_mtime_ns:
                run = next(o for o in lines[name] if o.startswith("eval_checkpoint="))
                overrides.append(f"{run}/{CHECKPOINTS[which]}")
                tasks.append(Task("eval", name, tuple(overrides), seed, f" {which}"))
        return self._jobs(tasks)

    def _jobs(self, tasks: Sequence[Task]) -> list[Job]:
        """A job for each task, or on a cluster one for all seeds of tasks that are else alike."""
        groups: dict[tuple, list[Task]] = {}
        for task in tasks:
            alike = task.script, task.line, task.overrides, None if self.launcher else task.seed
            groups.setdefault(alike, []).append(task)
        return [self._job(group) for group in groups.values()]

    def _job(self, tasks: Sequence[Task]) -> Job:
        first, seeds = tasks[0], ",".join(str(task.seed) for task in tasks)
        title = f"{first.script} {first.line}{first.note} seed {seeds}"
        command = ["bash", str(COMMANDS / f"{first.script}.sh"), first.line, *first.overrides]
        return Job(title, [*command, f"seed={seeds}", *self.launcher], self._log(title))

    def _log(self, title: str) -> Path:
        name = title.replace("/", "_").replace(" ", "_")
        return Path(self.scale.output_dir) / "logs" / f"{name}.log"

    def _data(self, config: Config) -> Iterator[tuple[str, list[str]]]:
        """Name and command of what brings a training's dataset, if it is not there."""
        name, folder = config.train_dataset_name, Path(self.scale.data_dir)
        header = folder / name / "header.json"
        if (header.is_file() and read_json(header)["complete"]) or (
            folder / f"{name}.npz"
        ).exists():
            return
        published = _published(name) if self.scale.download else None
        if published:
            module = [sys.executable, "-m", "datasets.download_datasets", published]
            yield f"download {published}", [*module, "--folder", str(folder)]
            return
        for cell, line in read_lines("collect").items():
            if f"dataset_name={name}" in line:
                command = ["bash", str(COMMANDS / "collect.sh"), cell]
                yield f"collect {cell}", [*command, *self.scale.overrides("collect", cell, line)]


def _published(dataset: str) -> str | None:
    """The name under which a dataset can be downloaded."""
    from datasets.download_datasets import DATASETS

    file = f"{dataset}.npz"
    return next((name for name, files in DATASETS.entries.items() if file in files), None)


def _encoder(config: Config) -> Iterator[tuple[str, list[str]]]:
    """Name and command of the download of a training's published encoder, if it is not there."""
    from visual_encoders.download_chkpts import ENCODERS

    path = Path(config.rep_model_checkpoint or "")
    if path.parent == ENCODERS.folder and not path.exists():
        module = [sys.executable, "-m", "visual_encoders.download_chkpts"]
        yield f"download {path.name}", [*module, path.name]


def _evaluated(folder: Path) -> dict[tuple[str, str, int], int]:
    """When each (variant name, checkpoint, seed) was last evaluated, in nanoseconds."""
    found: dict[tuple[str, str, int], int] = {}
    for file in folder.glob("*/metrics.json"):
        metrics = read_json(file)
        settings, checkpoint = metrics["settings"], Path(metrics["checkpoint"]).stem
        key = settings["eval_variant_name"], checkpoint, settings["seed"]
        found[key] = max(found.get(key, 0), file.stat().st_mtime_ns)
    return found


def _agent(name: str) -> str:
    """EXPERIMENT/AGENT of a line's name."""
    return "/".join(name.split("/")[:2])
