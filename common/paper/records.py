"""What runs reached, one row each: gathered from run folders, kept as CSV files in `results/`.

A cell of a table is EXPERIMENT/AGENT or EXPERIMENT/AGENT/VARIANT, as in commands/eval.sh. An
evaluation says which it is of by `eval_variant_name`, a training run by its folder's name, which
ends in the seed: ppp-state_ec-sgiql_max-value and ppp-state_ec-sgiql_0.
"""

import csv
import dataclasses
import io
import types
import typing
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.foundation.errors import UserError
from common.foundation.files import atomic_write, read_json
from common.settings.config import ROOT

PUBLISHED = ROOT / "results" / "published.csv"


@dataclass(frozen=True)
class Published:
    """A figure with its standard deviation, None if it has none, and where it stands."""

    mean: float
    sd: float | None
    source: str


def read_published(path: Path = PUBLISHED) -> dict[tuple[str, str, str, str], Published]:
    """The figures by (experiment, agent, variant, metric)."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            (row["experiment"], row["agent"], row["variant"], row["metric"]): Published(
                float(row["mean"]), float(row["sd"]) if row["sd"] else None, row["source"]
            )
            for row in csv.DictReader(file)
        }


UNTRAINED = {"train_device": "", "train_hours": None, "config": ""}  # or not known


@dataclass(frozen=True)
class Outcome:
    """One evaluation of one trained agent; a row of `runs.csv`. None: not known, or not measured.

    Attributes:
        experiment, agent, variant: the cell; "" is the agent as trained.
        checkpoint: "last", or "best" by the evaluations during training.
        seed: of the training and of the evaluation.
        objects: how many the evaluated world has.
        success, success_frac, episode_reward, entities_changed: means over the episodes.
        episodes: how many; episode_steps: their limit.
        updates: of the agent, 0 of a random policy. data: its dataset; transitions: how many it
            had.
        device: what evaluated. train_device: what trained; train_hours: for how long, without
            evaluations.
        run, evaluation: names of their folders.
        commit: of the code that evaluated, with + if files differed; config: hash of the
            settings of the training.
    """

    experiment: str
    agent: str
    variant: str
    checkpoint: str
    seed: int
    objects: int | None
    success: float
    success_frac: float
    episode_reward: float
    entities_changed: float | None
    episodes: int
    episode_steps: int
    updates: int
    data: str
    transitions: int | None
    device: str
    train_device: str
    train_hours: float | None
    run: str
    evaluation: str
    commit: str
    config: str

    @property
    def cell(self) -> str:
        return "/".join(part for part in (self.experiment, self.agent, self.variant) if part)


@dataclass(frozen=True)
class CurvePoint:
    """An evaluation during training; a row of `curves.csv`. `success` is a share of episodes."""

    experiment: str
    agent: str
    seed: int
    updates: int
    success: float


@dataclass(frozen=True)
class ChangeCount:
    """In how many episodes the first subgoal moves so many objects; a row of `changes.csv`."""

    experiment: str
    agent: str
    variant: str
    seed: int
    changed: int
    episodes: int


@dataclass(frozen=True)
class Records:
    """Everything that tables are made from."""

    outcomes: list[Outcome]
    curves: list[CurvePoint]
    changes: list[ChangeCount]


FILES = {  # attribute of `Records` -> its file and the class of its rows
    "outcomes": ("runs.csv", Outcome),
    "curves": ("curves.csv", CurvePoint),
    "changes": ("changes.csv", ChangeCount),
}


GROUPS = {  # attribute of `Records` -> what its rows are of; rows of the same are replaced together
    "outcomes": lambda row: (row.cell, row.checkpoint, row.seed),
    "curves": lambda row: f"{row.experiment}_{row.agent}_{row.seed}",
    "changes": lambda row: (f"{row.experiment}/{row.agent}/{row.variant}", row.seed),
}


def combine(old: Records, new: Records) -> Records:
    """The new records, and the old ones of cells, checkpoints and seeds that those are not of."""
    combined = {}
    for attribute, group in GROUPS.items():
        replaced = set(map(group, getattr(new, attribute)))
        kept = [row for row in getattr(old, attribute) if group(row) not in replaced]
        combined[attribute] = sorted([*kept, *getattr(new, attribute)], key=group)
    return Records(**combined)


def save(folder: Path, records: Records) -> list[Path]:
    """Write the records as CSV files, replacing those that are there; return the files."""
    paths = []
    for attribute, (name, cls) in FILES.items():
        names = [field.name for field in dataclasses.fields(cls)]
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(row) for row in getattr(records, attribute))
        paths.append(folder / name)
        with atomic_write(paths[-1]) as file:
            file.write(text.getvalue().encode())
    return paths


def load(folder: Path) -> Records:
    """Read the CSV files of a folder; raises `UserError` naming a file that cannot be read."""
    return Records(**{key: list(_rows(folder / name, cls)) for key, (name, cls) in FILES.items()})


def _rows(path: Path, cls: type) -> Iterator[Any]:
    kinds = typing.get_type_hints(cls)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield cls(**{name: _value(text, kinds[name]) for name, text in row.items()})
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"cannot read {path} ({error}); make it with `python -m common.paper.tables "
            f"OUTPUT_FOLDER {path.parent}`"
        ) from error


def _value(text: str, kind: Any) -> Any:
    if isinstance(kind, types.UnionType):
        kind = typing.get_args(kind)[0]
        return kind(text) if text else None
    return kind(text)


def gather(output: Path) -> tuple[Records, list[str]]:
    """Read the run folders under `output` (an `output_dir`).

    Of several evaluations of the same cell, checkpoint and seed the newest counts, as their
    folders' names end in the time. Returns the records, sorted, and the names of the evaluations
    that are left out because their names are of no cell.
    """
    files = sorted((output / "eval").glob("*/metrics.json"), key=lambda p: p.stat().st_mtime_ns)
    if not files:
        raise UserError(f"no evaluations in {output}/eval; make some with commands/reproduce.sh")
    newest: dict[tuple[str, str, int], tuple[Outcome, Path]] = {}
    foreign = []
    for file in files:
        outcome = _outcome(file.parent)
        if outcome is None:
            foreign.append(file.parent.name)
        else:
            newest[outcome.cell, outcome.checkpoint, outcome.seed] = outcome, file.parent
    chosen = [newest[key] for key in sorted(newest)]
    outcomes = [outcome for outcome, _ in chosen]
    changes = [row for outcome, folder in chosen for row in _changes(outcome, folder)]
    return Records(outcomes, list(_curves(output / "train")), changes), foreign


def _outcome(folder: Path) -> Outcome | None:
    """The row of an evaluation's folder, None if it is of no cell."""
    metrics = read_json(folder / "metrics.json")
    settings, summary = metrics["settings"], metrics["summary"]
    cell = settings["eval_variant_name"].split("_")
    if len(cell) not in (2, 3):
        return None
    checkpoint = Path(metrics["checkpoint"])
    run = folder.parents[1] / "train" / checkpoint.parent.name
    provenance = metrics["provenance"]

    def mean(name: str) -> float | None:
        return summary[name]["mean"] if name in summary else None

    return Outcome(
        experiment=cell[0],
        agent=cell[1],
        variant="".join(cell[2:]),
        checkpoint=checkpoint.stem,
        seed=settings["seed"],
        success=mean("success"),
        success_frac=mean("success_frac"),
        episode_reward=mean("episode_reward"),
        entities_changed=mean("entities_changed"),
        episodes=metrics["episodes"],
        episode_steps=settings["max_episode_steps"],
        updates=metrics["updates"],
        device=provenance["device_name"],
        run=run.name,
        evaluation=folder.name,
        commit=_commit(provenance["git"]),
        **_about_world(settings),
        **(_about_training(run) if metrics["updates"] else UNTRAINED),
    )


def _commit(git: dict[str, Any] | None) -> str:
    return git["commit"][:10] + "+" * git["dirty"] if git else ""


def _about_world(settings: dict[str, Any]) -> dict[str, Any]:
    """The number of objects, and what the agent learned from."""
    from common.settings.inherit import stored_settings
    from envs.make import make_world

    config = stored_settings(settings)
    share = f" (1/{config.train_dataset_div})" if config.train_dataset_div > 1 else ""
    header = Path(config.data_dir) / config.train_dataset_name / "header.json"
    transitions = None
    if header.is_file() and not share:
        about = read_json(header)
        transitions = about["rows"]["train"] - about["episodes"]["train"]
    return {
        "objects": make_world(config).num_entities - 1,  # without the agent's own row
        "data": f"{config.train_dataset_name}{share}",
        "transitions": transitions,
    }


def _about_training(run: Path) -> dict[str, Any]:
    """Device, time and settings of a training run; unknown if its folder is not there."""
    from common.runs.curves import read_csv
    from common.runs.folders import settings_hash
    from common.settings.inherit import stored_settings

    if not (run / "config.json").is_file():
        return UNTRAINED
    seconds = read_csv(run / "timing.csv").get("seconds", ())
    return {
        "train_device": read_json(run / "provenance.json")[-1]["device_name"],
        "train_hours": round(float(sum(seconds)) / 3600, 2),
        "config": settings_hash(stored_settings(read_json(run / "config.json"))),
    }


def _changes(outcome: Outcome, folder: Path) -> list[ChangeCount]:
    """How often an evaluation's first subgoals moved so many objects."""
    if outcome.entities_changed is None or outcome.checkpoint != "last":
        return []
    with (folder / "episodes.csv").open(encoding="utf-8", newline="") as file:
        counts = Counter(int(float(row["entities_changed"])) for row in csv.DictReader(file))
    name = outcome.experiment, outcome.agent, outcome.variant, outcome.seed
    return [ChangeCount(*name, changed, counts[changed]) for changed in sorted(counts)]


def _curves(runs: Path) -> Iterator[CurvePoint]:
    """The evaluations during training of every run that is named after a cell."""
    from common.runs.curves import read_csv

    for file in sorted(runs.glob("*/eval.csv")):
        name: Sequence[str] = file.parent.name.split("_")
        if len(name) == 3 and name[2].isdigit():
            columns = read_csv(file)
            for updates, success in zip(columns["step"], columns["success"], strict=True):
                yield CurvePoint(name[0], name[1], int(name[2]), int(updates), float(success))
