"""One HTML page about runs: `python -m common.tools.report PATH... [--to FILE]`.

A PATH is the folder of a training run (with its newest evaluations), of an evaluation, or of tables
(`python -m common.paper.tables`). The page has everything in itself, pictures and videos too: it
needs no server and no network, and can be sent as it is.
"""

import argparse
import base64
import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.foundation.errors import UserError, one_line_errors
from common.foundation.files import atomic_write, read_json
from common.paper import records
from common.paper.comparison import TABLES
from common.paper.formats import Section
from common.paper.tables import sections, tables_of
from common.runs.curves import draw_training_curves
from common.runs.folders import dotted
from common.settings.config import compose
from common.settings.schema import show
from common.tools.summary import evaluations

TEMPLATE = Path(__file__).with_suffix(".html")
VIDEO, PICTURE = "video/mp4", "image/png"


@dataclass(frozen=True)
class Media:
    """A picture or video; `source` is a data URI, `kind` its MIME type."""

    caption: str
    kind: str
    source: str


@dataclass(frozen=True)
class Part:
    """A chapter of the page: pictures and videos, then tables; appendices are folded away."""

    title: str
    media: list[Media]
    sections: list[Section]


def make_report(paths: Sequence[Path]) -> str:
    """The page about these folders. Raises `UserError` for one that holds nothing known."""
    import jinja2

    parts = [part for path in paths for part in describe(path)]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    title = ", ".join(path.resolve().name for path in paths)
    return template.render(title=title, parts=parts)


def describe(path: Path) -> list[Part]:
    """What there is to say about a folder, told by the files in it."""
    for file, tell in KINDS.items():
        if (path / file).is_file():
            return tell(path)
    raise UserError(
        f"{path} is no folder of a run, of an evaluation or of tables; give one that has "
        f"{', '.join(KINDS)}"
    )


def _tables(folder: Path) -> list[Part]:
    from common.paper.pictures import draw_curves, draw_table

    data = records.load(folder)
    parts = []
    for name, table in tables_of(data).items():
        picture = _picture(TABLES[name].title, draw_table(name, table, data.changes))
        parts.append(Part(TABLES[name].title, [picture], sections(table, TABLES[name])))
    if data.curves:
        note = "Mean over seeds with the 95 % interval of its bootstrap."
        parts.append(Part("Learning curves", [_picture(note, draw_curves(data.curves))], []))
    return parts


def _run(folder: Path) -> list[Part]:
    """A training run, then the newest evaluation of each variant of its `last` checkpoint."""
    settings = read_json(folder / "config.json")
    media = [_picture("Training curves", draw_training_curves(folder))]
    filmed = sorted(folder.glob("video_*.mp4"), key=lambda path: int(path.stem[6:]))
    if filmed:
        media.append(_file(filmed[-1], f"Evaluation after {filmed[-1].stem[6:]} updates"))
    provenance = read_json(folder / "provenance.json")
    facts = _facts(settings, provenance[-1], {"starts": len(provenance)})
    tables = [facts, *_rows(folder / "eval.csv", "Evaluations during training")]
    parts = [Part(f"Run {folder.name}", media, [*tables, *_settings(settings)])]
    return parts + [_evaluation(found)[0] for found, _ in evaluations(folder).values()]


def _evaluation(folder: Path) -> list[Part]:
    metrics = read_json(folder / "metrics.json")
    media = [
        _file(folder / name, caption)
        for name, caption in (
            ("video.mp4", "The first episodes: their goals, then what happens"),
            ("strip.png", "Moments of an episode, then its goal"),
        )
        if (folder / name).is_file()
    ]
    more = {name: metrics[name] for name in ("checkpoint", "updates", "env_steps", "seconds")}
    summaries = {"All episodes": metrics["summary"]}
    summaries |= {f"Task {task}": found for task, found in metrics.get("tasks", {}).items()}
    tables = [
        *(_summary(title, found) for title, found in summaries.items()),
        *_rows(folder / "episodes.csv", "Episodes"),
        _facts(metrics["settings"], metrics["provenance"], more),
        *_settings(metrics["settings"]),
    ]
    return [Part(f"Evaluation {folder.name}", media, tables)]


# A file that is in folders of one kind only -> what tells about them; the first that fits holds.
KINDS: dict[str, Callable[[Path], list[Part]]] = {
    "runs.csv": _tables,
    "metrics.json": _evaluation,
    "eval.csv": _run,
    "train.csv": _run,
}


def _summary(title: str, figures: Mapping[str, Mapping[str, float]]) -> Section:
    rows = [
        [name, f"{f['mean']:.3f}", f"{f['low']:.3f} to {f['high']:.3f}", str(f["count"])]
        for name, f in figures.items()
    ]
    return Section(title, "", ["metric", "mean", "95 % interval", "episodes"], rows, numbers=1)


def _facts(
    settings: Mapping[str, Any], provenance: Mapping[str, Any], more: Mapping[str, Any]
) -> Section:
    """What was done on which machine by which code."""
    git = provenance["git"]
    commit = "unknown" if git is None else git["commit"] + ", files differed" * git["dirty"]
    versions = ", ".join(f"{k} {v}" for k, v in provenance["versions"].items())
    facts = {
        "agent": settings["agent"],
        "task": settings["task"],
        "seed": settings["seed"],
        "data": settings["train_dataset_name"],
        **more,
        "date": provenance["started"],
        "commit": commit,
        "device": provenance["device_name"],
        "system": provenance["system"],
        "versions": versions,
    }
    rows = [[name, str(value)] for name, value in facts.items()]
    return Section("How", "", ["", ""], rows, numbers=2)


def _settings(settings: Mapping[str, Any]) -> list[Section]:
    """The settings that differ from `config.yaml`, then all."""
    ours, defaults = dotted(settings), dotted(compose().raw)
    changed = {key: value for key, value in ours.items() if value != _plain(defaults.get(key))}
    return [
        Section(title, "", ["setting", "value"], [[k, show(v)] for k, v in rows.items()], 2, folded)
        for title, rows, folded in (
            ("Settings unlike config.yaml", changed, False),
            ("All settings", ours, True),
        )
    ]


def _plain(value: Any) -> Any:
    """A default as it comes back from JSON."""
    return list(value) if isinstance(value, tuple) else value


def _rows(file: Path, title: str) -> list[Section]:
    """A CSV file as a table with shortened numbers, if it is there."""
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as text:
        columns, *rows = csv.reader(text)
    return [Section(title, "", columns, [list(map(_short, row)) for row in rows], numbers=0)]


def _short(number: str) -> str:
    return number if number.lstrip("-").isdigit() else f"{float(number or 'nan'):.4g}"


def _picture(caption: str, content: bytes, kind: str = PICTURE) -> Media:
    return Media(caption, kind, f"data:{kind};base64,{base64.b64encode(content).decode()}")


def _file(path: Path, caption: str) -> Media:
    return _picture(caption, path.read_bytes(), VIDEO if path.suffix == ".mp4" else PICTURE)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make one HTML page about runs.")
    parser.add_argument("paths", nargs="+", type=Path, help="folders of runs or tables")
    parser.add_argument("--to", type=Path, help="the file; by default report.html in the first")
    options = parser.parse_args(arguments)
    with one_line_errors():
        page = make_report(options.paths)
        target = options.to or options.paths[0] / "report.html"
        with atomic_write(target) as file:
            file.write(page.encode())
        print(target)


if __name__ == "__main__":
    main()
