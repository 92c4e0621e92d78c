"""Folders of runs and of their evaluations, as train.py and evaluate.py leave them, without either.

What is in them is made up.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from common.foundation.files import csv_text, read_json, write_json
from common.runs import checkpoint
from common.settings.config import compose

GIT = {"commit": "0123456789abcdef", "dirty": False}
WORLD = ("env_kwargs.manipobj.num_cubes=2", "max_episode_steps=40")
METRICS = ("success", "success_frac", "episode_reward", "interaction_rate")


def add_run(output: Path, cell: str, seed: int, successes: Sequence[float] = (0.2, 0.4)) -> Path:
    """A training run of a cell, evaluated after every ten updates; returns its folder."""
    folder = output / "train" / f"{cell.replace('/', '_')}_{seed}"
    folder.mkdir(parents=True)
    config = compose([*WORLD, f"seed={seed}", f"run_name={folder.name}"])
    write_json(folder / "config.json", config.raw)
    write_json(folder / "provenance.json", [_provenance()])
    points = enumerate(successes, start=1)
    (folder / "eval.csv").write_text(csv_text([{"step": 10 * i, "success": s} for i, s in points]))
    speed = {"step": 10, "seconds": 1800.0, "updates_per_second": 2.0}
    (folder / "timing.csv").write_text(csv_text([speed]))
    return folder


def add_evaluation(
    output: Path,
    cell: str,
    seed: int,
    successes: Sequence[float],
    *,
    checkpoint: str = "last",
    changed: Sequence[int] = (),
    overrides: Sequence[str] = (),
    name: str = "",
    updates: int = 20,
) -> Path:
    """An evaluation of a cell with an episode for each success, 0 or 1; returns its folder."""
    variant = cell.replace("/", "_")
    folder = output / "eval" / (name or f"{variant}_{checkpoint}_{seed}_20260101-000000")
    folder.mkdir(parents=True)
    rows = [
        {"episode": i, "seed": 7 + i, **dict.fromkeys(METRICS, success)}
        for i, success in enumerate(successes)
    ]
    for row, count in zip(rows, changed, strict=False):
        row["entities_changed"] = float(count)
    (folder / "episodes.csv").write_text(csv_text(rows))
    names = [key for key in rows[0] if key not in ("episode", "seed")]
    means = {key: sum(row[key] for row in rows) / len(rows) for key in names}
    run = "_".join([*cell.split("/")[:2], str(seed)])
    settings = [*WORLD, f"seed={seed}", f"eval_variant_name={variant}", *overrides]
    metrics = {
        "summary": {k: {"mean": m, "low": m, "high": m, "count": 4} for k, m in means.items()},
        "episodes": len(rows),
        "env_steps": 40 * len(rows),
        "seconds": 1.0,
        "checkpoint": str(output / "train" / run / f"{checkpoint}.safetensors"),
        "updates": updates,
        "settings": compose(settings).raw,
        "provenance": _provenance(),
    }
    write_json(folder / "metrics.json", metrics)
    return folder


def add_checkpoint(
    run: Path, step: int, which: str = "last", data: Mapping[str, Any] | None = None
) -> str:
    """A checkpoint without parameters in the folder of a run; returns its checksum."""
    file = run / f"{which}.safetensors"
    checkpoint.save(file, {"x": torch.zeros(1)}, {"step": step, "data": data})
    return checkpoint.summary(file)[1]


def add_origin(evaluation: Path, checksum: str, data: Mapping[str, Any] | None = None) -> None:
    """Let an evaluation say of which checkpoint it is, and what that one learned from."""
    metrics = read_json(evaluation / "metrics.json")
    origin = {"checkpoint_checksum": checksum, "data": data}
    write_json(evaluation / "metrics.json", metrics | origin)


def _provenance() -> dict[str, Any]:
    about = {"started": "2026-01-01T00:00:00", "command": ["train.py"], "system": "a system"}
    return about | {"git": GIT, "versions": {"python": "3"}, "device_name": "a processor"}
