"""Agents to take away: `python -m common.runs.export FOLDER RUN [EVALUATION...] [--acting]`.

Copies to FOLDER, such as one of `results/agents`, what is needed to use the agent of a run: its
`last` checkpoint without the state of its training (Adam's moments, generators), which is most of
it, and its settings. Beside them `figures.json` says what it was trained on, how long, and what
these evaluations of it (folders that evaluate.py wrote) found. `evaluate.py` and
`train_from_checkpoint` take such a folder; training that was stopped cannot continue from it.
`--acting` leaves out the critics as well, more than half of what is left; then it can only act.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.foundation.errors import UserError, one_line_errors
from common.foundation.files import make_folder, read_json, write_json
from common.foundation.registry import AGENTS, lookup
from common.runs.checkpoint import flatten, load, save, unflatten
from common.runs.identity import is_current
from common.settings.inherit import DEFAULT_CHECKPOINT, find_checkpoint

FIGURES, SETTINGS = "figures.json", "config.json"
MOMENTS = "adam"  # the part of a learner's state that only learning reads


def ship(
    folder: Path, run: Path, evaluations: Sequence[Path] = (), acting_only: bool = False
) -> None:
    """Make `folder` from the run folder `run` and evaluation folders of its checkpoint.

    Args:
        acting_only: whether to leave out what acting does not read, too.

    Raises `UserError` if one of them is not what it should be.
    """
    checkpoint = find_checkpoint(str(run), "RUN")
    tensors, meta = load(checkpoint)
    state = unflatten(tensors, meta["structure"])
    acting_only = acting_only or meta.get("acting_only", False)
    kind = lookup(AGENTS, meta["config"]["agent"], "agent")
    left_out = kind.learning_only if acting_only else ()
    parts = {name: part for name, part in state["agent"].items() if name not in left_out}
    slim = {"agent": _without_moments(parts), "normaliser": state["normaliser"]}
    figures = {
        "updates": meta["step"],
        "dataset": meta["config"]["train_dataset_name"],
        "data": meta.get("data"),
        "evaluations": dict(_figures(evaluation, checkpoint) for evaluation in evaluations),
    }
    make_folder(folder, "FOLDER")
    kept, structure = flatten(slim)
    about = {"structure": structure, "extra": {}, "acting_only": acting_only}
    save(folder / DEFAULT_CHECKPOINT, kept, meta | about)
    write_json(folder / SETTINGS, meta["config"], sealed=True)
    write_json(folder / FIGURES, figures, sealed=True)


def _without_moments(state: Any) -> Any:
    if not isinstance(state, dict):
        return state
    return {k: _without_moments(part) for k, part in state.items() if k != MOMENTS}


def _figures(evaluation: Path, checkpoint: Path) -> tuple[str, dict[str, Any]]:
    """Name of an evaluation and what it found; raises `UserError` if it is of something else."""
    path = evaluation / "metrics.json"
    if not path.is_file():
        raise UserError(f"{evaluation} is no finished evaluation; give a folder of evaluate.py")
    metrics = read_json(path)
    if Path(metrics["checkpoint"]).resolve() != checkpoint.resolve():
        raise UserError(f"{evaluation} is of {metrics['checkpoint']}, not of {checkpoint}")
    if not is_current(metrics, checkpoint):
        raise UserError(
            f"{evaluation} is of {checkpoint} as it was after {metrics['updates']} updates, not as "
            "it is now; evaluate it again"
        )
    settings = metrics["settings"]
    name = settings["eval_variant_name"] or "evaluation"
    about = {"episodes": metrics["episodes"], "seed": settings["seed"]}
    return name, about | metrics["summary"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("run", metavar="RUN", type=Path)
    parser.add_argument("evaluations", metavar="EVALUATION", type=Path, nargs="*")
    parser.add_argument("--acting", action="store_true", help="leave out what only learning reads")
    options = parser.parse_intermixed_args(arguments)
    with one_line_errors():
        ship(options.folder, options.run, options.evaluations, options.acting)
        size = sum(file.stat().st_size for file in options.folder.iterdir())
        print(f"{options.folder}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
