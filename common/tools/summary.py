"""What a run achieved, as a table: `python -m common.tools.summary RUN_FOLDER`.

Lists the evaluations of the run's `last` checkpoint (newest of each variant) and the files made, a
picture of what its encoder makes of images among them.
"""

import sys
from pathlib import Path
from typing import Any

from common.foundation.errors import UserError, one_line_errors
from common.foundation.files import read_json

# Metrics of the table, where a world has them.
COLUMNS = ("success", "success_frac", "final_coverage", "final_chamfer")
COLUMNS += ("episode_reward", "interaction_rate")


def evaluations(run: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The newest evaluation of each variant of this run: variant -> (folder, metrics)."""
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    files = (run.parents[1] / "eval").glob("*/metrics.json")
    for file in sorted(files, key=lambda path: path.stat().st_mtime):
        metrics = read_json(file)
        if Path(metrics["checkpoint"]).resolve() == (run / "last.safetensors").resolve():
            variant = metrics["settings"]["eval_variant_name"] or "as trained"
            found[variant] = (file.parent, metrics)
    return found


def table(found: dict[str, tuple[Path, dict[str, Any]]]) -> str:
    """One line per variant: each metric's mean with its 95 % interval."""
    width = max(map(len, found))
    known = set.intersection(*(set(metrics["summary"]) for _, metrics in found.values()))
    columns = [column for column in COLUMNS if column in known]
    heading = f"{'':{width}}  {'updates':>8}  {'episodes':>8}"
    lines = [heading + "".join(f"{column:>27}" for column in columns)]
    for variant, (_, metrics) in found.items():
        line = f"{variant:{width}}  {metrics['updates']:8}  {metrics['episodes']:8}"
        for column in columns:
            figure = metrics["summary"][column]
            text = f"{figure['mean']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"
            line += f"{text:>27}"
        lines.append(line)
    return "\n".join(lines)


def files(run: Path, found: dict[str, tuple[Path, dict[str, Any]]]) -> list[Path]:
    """What there is to look at: curves, videos, pictures, per-episode results."""
    names = ("video.mp4", "strip.png", "episodes.csv")
    wanted = [run / "curves.png", *(folder / n for folder, _ in found.values() for n in names)]
    encoders = [metrics["settings"].get("rep_model_checkpoint") for _, metrics in found.values()]
    for encoder in dict.fromkeys(filter(None, encoders)):
        wanted += sorted(Path(encoder, "pictures").glob("*.png"))[-1:]  # of the last epoch
    return [path for path in wanted if path.exists()]


def main() -> None:
    """Print table and paths."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m common.tools.summary RUN_FOLDER")
    run = Path(sys.argv[1])
    with one_line_errors():
        found = evaluations(run)
        if not found:
            made_by = f"evaluate.py eval_checkpoint={run}"
            raise UserError(f"no evaluations of {run}; make one with {made_by}")
    print(table(found), "", *files(run, found), sep="\n")


if __name__ == "__main__":
    main()
