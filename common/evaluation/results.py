"""Results of an evaluation as files and as a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.evaluation.evaluate import Evaluation
from common.evaluation.intervals import Interval
from common.evaluation.video import save_grid, strip
from common.foundation.files import atomic_write, csv_text, write_json
from common.foundation.video import save_picture


def save_results(folder: Path, result: Evaluation, about: Mapping[str, Any]) -> list[Path]:
    """Write an evaluation into its folder and return the files. Where metrics.json is, all are.

    `metrics.json` (the summary with intervals, and `about`), `episodes.csv` (a row per episode);
    of filmed episodes `video.mp4` and `strip.png`, which shows the first one that succeeded.
    """
    paths = [folder / "metrics.json", folder / "episodes.csv"]
    with atomic_write(paths[1]) as file:
        file.write(csv_text(result.rows).encode())
    if result.clips:
        paths += [folder / "video.mp4", folder / "strip.png"]
        save_grid(paths[2], result.clips)
        reached = [clip for clip in result.clips if clip.successes[-1]]
        save_picture(paths[3], strip((reached or result.clips)[0]))
    write_json(paths[0], metrics(result) | dict(about), sealed=True)
    return paths


def metrics(result: Evaluation) -> dict[str, Any]:
    """The summary and its cost, ready for JSON; `tasks` has each evaluation task's, if any."""
    by_task = {str(task): _plain(summary) for task, summary in result.tasks.items()}
    return {
        "summary": _plain(result.summary),
        **({"tasks": by_task} if by_task else {}),
        "episodes": len(result.rows),
        "env_steps": result.env_steps,
        "seconds": round(result.seconds, 1),
    }


def _plain(summary: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {name: interval.as_dict() for name, interval in summary.items()}


def table(result: Evaluation) -> str:
    """The summary as lines of text, then the success of each evaluation task."""
    lines = [f"{'metric':18}{'mean':>10}   95 % interval"]
    for name, interval in result.summary.items():
        lines.append(_line(name, interval))
    for task, summary in result.tasks.items():
        lines.append(_line(f"success, task {task}", summary["success"]))
    return "\n".join(lines)


def _line(name: str, interval: Interval) -> str:
    return f"{name:18}{interval.mean:10.3f}   {interval.low:.3f} to {interval.high:.3f}"
