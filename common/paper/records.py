"""Results of runs as data frames: gathered from run folders, kept as CSV files in `results/`.

A cell of a table is EXPERIMENT/AGENT or EXPERIMENT/AGENT/VARIANT, as in commands/eval.sh. An
evaluation says which it is of by `eval_variant_name`, a training run by its folder's name, which
ends in the seed: ppp-state_ec-sgiql_max-value and ppp-state_ec-sgiql_0.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from common.foundation.errors import UserError
from common.foundation.files import atomic_write, read_json
from common.foundation.registry import world_class
from common.runs.curves import read_csv
from common.runs.folders import settings_hash
from common.runs.identity import DIGITS, is_current
from common.settings.config import ROOT
from common.settings.inherit import stored_settings

PUBLISHED = ROOT / "results" / "published.csv"
# The columns of each file and their types; those of some kinds of numbers may lack a value.
RUNS = {  # a row per evaluation of a trained agent
    "experiment": "str",
    "agent": "str",
    "variant": "str",  # "": as trained
    "checkpoint": "str",  # last, or best by the evaluations during training
    "seed": "int64",  # of training and evaluation
    "objects": "Int64",  # of the evaluated world
    "success": "float64",  # headline metric of the world: in all of them so far its success
    "success_frac": "float64",
    "episode_reward": "float64",
    "entities_changed": "float64",
    "episodes": "int64",
    "episode_steps": "int64",  # their limit
    "updates": "int64",  # 0 of a random policy
    "data": "str",
    "data_content": "str",  # digits that differ where the data do; "": results of earlier versions
    "transitions": "Int64",
    "device": "str",
    "train_device": "str",
    "train_hours": "float64",  # without evaluations
    "run": "str",  # this and the next: names of folders
    "evaluation": "str",
    "commit": "str",  # of the evaluating code, with + if files differed
    "config": "str",  # hash of the settings of the training
}
CURVES = {  # a row per evaluation during training
    "experiment": "str",
    "agent": "str",
    "seed": "int64",
    "updates": "int64",
    "success": "float64",
}
CHANGES = {  # in how many episodes the first subgoal moves so many objects
    "experiment": "str",
    "agent": "str",
    "variant": "str",
    "seed": "int64",
    "changed": "int64",
    "episodes": "int64",
}
FILES = {"runs": RUNS, "curves": CURVES, "changes": CHANGES}
OWN = "its own episodes"  # data of agents that learn online
LATER = {"data_content"}  # columns that files of earlier versions lack
CELL = ["experiment", "agent", "variant"]
KEYS = {  # rows with the same values here are replaced together
    "runs": [*CELL, "checkpoint", "seed"],
    "curves": ["experiment", "agent", "seed"],
    "changes": [*CELL, "seed"],
}


@dataclass(frozen=True)
class Records:
    """Everything that tables are made from; each is in the file of its name."""

    runs: pd.DataFrame
    curves: pd.DataFrame
    changes: pd.DataFrame

    @classmethod
    def of(cls, **rows: list[Mapping[str, Any]]) -> "Records":
        """Records from rows; without those of a file it is empty."""
        frames = {
            name: pd.DataFrame(rows.get(name, []), columns=list(types)).astype(types)
            for name, types in FILES.items()
        }
        return cls(**frames)


class Published(NamedTuple):
    """A figure with its standard deviation, NaN if it has none, and where it stands."""

    mean: float
    sd: float
    source: str


def read_published(path: Path = PUBLISHED) -> dict[tuple[str, str, str, str], Published]:
    """The figures by (experiment, agent, variant, metric)."""
    frame = pd.read_csv(path, keep_default_na=False, na_values={"sd": [""]})
    return {row[:4]: Published(*row[4:]) for row in frame.itertuples(index=False, name=None)}


def combine(old: Records, new: Records) -> Records:
    """The new records, and the old ones of cells, checkpoints and seeds that those are not of."""

    def both(name: str) -> pd.DataFrame:
        keys, frames = KEYS[name], (getattr(old, name), getattr(new, name))
        known, coming = (pd.MultiIndex.from_frame(frame[keys]) for frame in frames)
        together = pd.concat([frames[0][~known.isin(coming)], frames[1]])
        return together.sort_values(keys, kind="stable", ignore_index=True)

    return Records(*map(both, FILES))


def save(folder: Path, records: Records) -> list[Path]:
    """Write the records as CSV files, replacing those that are there; return the files."""
    return [write_frame(folder / f"{name}.csv", getattr(records, name)) for name in FILES]


def write_frame(path: Path, frame: pd.DataFrame) -> Path:
    with atomic_write(path) as file:
        file.write(frame.to_csv(index=False, lineterminator="\n").encode())
    return path


def load(folder: Path) -> Records:
    """Read the CSV files of a folder; raises `UserError` naming a file that cannot be read."""
    return Records(*(_load(folder / f"{name}.csv", types) for name, types in FILES.items()))


def _load(path: Path, types: Mapping[str, str]) -> pd.DataFrame:
    empty = {name: [""] for name, kind in types.items() if kind != "str"}
    try:
        frame = pd.read_csv(
            path,
            dtype=types,
            keep_default_na=False,
            na_values=empty,
        )
        for name in LATER & types.keys() - {*frame}:
            frame.insert(min(list(types).index(name), frame.shape[1]), name, "")
        if list(frame) != list(types):
            raise ValueError(f"its columns are not {', '.join(types)}")
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {path} ({error}); make it with `python -m common.paper.tables "
            f"OUTPUT_FOLDER {path.parent}`"
        ) from error
    return frame


def gather(output: Path) -> tuple[Records, list[str]]:
    """Read the run folders under `output` (an `output_dir`).

    Of several evaluations of the same cell, checkpoint and seed the newest counts, as their
    folders' names end in the time. Returns the records, sorted, and the names of the evaluations
    that are left out because their names are of no cell.
    """
    files = sorted((output / "eval").glob("*/metrics.json"), key=lambda p: p.stat().st_mtime_ns)
    if not files:
        raise UserError(f"no evaluations in {output}/eval; make some with commands/reproduce.sh")
    newest, foreign = {}, []
    for folder in (file.parent for file in files):
        row = _evaluation(folder)
        if row is None:
            foreign.append(folder.name)
        else:
            newest[tuple(row[key] for key in KEYS["runs"])] = row
    runs = [newest[key] for key in sorted(newest)]
    changes = [change for row in runs for change in _changes(row, output / "eval")]
    return Records.of(runs=runs, curves=list(_curves(output / "train")), changes=changes), foreign


def _evaluation(folder: Path) -> dict[str, Any] | None:
    """The row of an evaluation's folder, None if it is of no cell."""
    metrics = read_json(folder / "metrics.json")
    cell = metrics["settings"]["eval_variant_name"].split("_")
    if len(cell) not in (2, 3):
        return None
    config = stored_settings(metrics["settings"])
    checkpoint = Path(metrics["checkpoint"])
    run = folder.parents[1] / "train" / checkpoint.parent.name
    git, device = (metrics["provenance"][key] for key in ("git", "device_name"))
    means = {name: figure["mean"] for name, figure in metrics["summary"].items()}
    return {
        **dict(zip(CELL, [*cell, ""], strict=False)),
        **means,
        "success": means[world_class(config.task).headline],
        "checkpoint": checkpoint.stem,
        "seed": config.seed,
        "episodes": metrics["episodes"],
        "episode_steps": config.max_episode_steps,
        "updates": metrics["updates"],
        "device": device,
        "run": run.name,
        "evaluation": folder.name,
        "commit": git["commit"][:10] + "+" * git["dirty"] if git else "",
        **_data(config, (metrics.get("data") or {}).get("dataset")),
        **_training(run if metrics["updates"] else None),
    }


def mixed(runs: pd.DataFrame) -> Iterator[str]:
    """A line for each cell whose runs learned from different data, as far as that is known."""
    known = runs[runs.data_content != ""]
    for cell, own in known.groupby(CELL):
        seeds = own.groupby("data_content").seed.unique()
        if len(seeds) > 1:
            told = (f"{content} (seed {', '.join(map(str, s))})" for content, s in seeds.items())
            yield f"{'/'.join(filter(None, cell))} has runs on different data: {', '.join(told)}"


def outdated(runs: pd.DataFrame, output: Path) -> Iterator[str]:
    """A line for each evaluation under `output` whose run has learned on since."""
    for run in runs.itertuples():
        metrics = read_json(output / "eval" / run.evaluation / "metrics.json")
        checkpoint = output / "train" / run.run / f"{run.checkpoint}.safetensors"
        if not is_current(metrics, checkpoint):
            yield (
                f"{run.evaluation} is of {checkpoint} as it was after {run.updates} updates, not "
                "as it is now; evaluate it again"
            )


def _data(config: Any, source: Mapping[str, Any] | None) -> dict[str, Any]:
    """The number of objects, and the data that were learned from; `source` of `identity`."""
    from envs.make import make_world

    share = f" (1/{config.train_dataset_div})" if config.train_dataset_div > 1 else ""
    name = config.train_dataset_name or OWN
    header = Path(config.data_dir) / name / "header.json"
    transitions = source["rows"] - source["episodes"] if source else None
    if not source and header.is_file() and not share:
        about = read_json(header)
        transitions = about["rows"]["train"] - about["episodes"]["train"]
    return {
        "objects": make_world(config).num_entities - 1,  # without the agent's own row
        "data": f"{name}{share}",
        "data_content": source["content"][:DIGITS] if source else "",
        "transitions": transitions,
    }


def _training(run: Path | None) -> dict[str, Any]:
    """Device, time and settings of a training run, if there was one and its folder is there."""
    if run is None or not (run / "config.json").is_file():
        return {"train_device": "", "train_hours": None, "config": ""}
    seconds = read_csv(run / "timing.csv").get("seconds", ())
    return {
        "train_device": read_json(run / "provenance.json")[-1]["device_name"],
        "train_hours": round(float(sum(seconds)) / 3600, 2),
        "config": settings_hash(stored_settings(read_json(run / "config.json"))),
    }


def _changes(row: Mapping[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """Episodes of an evaluation by the number of objects that their first subgoal moved."""
    if "entities_changed" in row and row["checkpoint"] == "last":
        changed = read_csv(folder / row["evaluation"] / "episodes.csv")["entities_changed"]
        for count, episodes in pd.Series(changed).value_counts().sort_index().items():
            keys = {key: row[key] for key in KEYS["changes"]}
            yield {**keys, "changed": int(count), "episodes": episodes}


def _curves(runs: Path) -> Iterator[dict[str, Any]]:
    """The evaluations during training of every run that is named after a cell."""
    for file in sorted(runs.glob("*/eval.csv")):
        name = file.parent.name.split("_")
        if len(name) == 3 and name[2].isdigit():
            headline = world_class(read_json(file.parent / "config.json")["task"]).headline
            keys = dict(zip(KEYS["curves"], name, strict=True))
            columns = read_csv(file)
            for updates, figure in zip(columns["step"], columns[headline], strict=True):
                yield {**keys, "updates": updates, "success": figure}
