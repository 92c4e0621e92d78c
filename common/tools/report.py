"""One HTML page about runs: `python -m common.tools.report PATH... [--to FILE]`.

A PATH is the folder of a training run (with its newest evaluations), of an evaluation, or of tables
(`python -m common.paper.tables`). The page has everything in itself, pictures and videos too: it
needs no server and no network, and can be sent as it is. `--text` prints the evaluations of
training runs as a table instead, with the files that were made.
"""

import argparse
import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.foundation.errors import UserError, one_line_errors
from common.foundation.files import atomic_write, check_path, read_json
from common.foundation.registry import world_class
from common.paper.formats import Section
from common.runs.curves import draw_training_curves, read_csv
from common.runs.folders import dotted
from common.runs.identity import Sources, is_current
from common.runs.identity import describe as describe_source
from common.settings.config import compose
from common.settings.schema import show

TEMPLATE = Path(__file__).with_suffix(".html")
EARLIER = "before it learned on"
VIDEO, PICTURE = "video/mp4", "image/png"
# Metrics beside the headline one in the text, where a world has them.
MORE_METRICS = ("success_frac", "final_coverage", "final_chamfer")
MORE_METRICS += ("episode_reward", "interaction_rate")

Evaluations = dict[str, tuple[Path, dict[str, Any]]]  # variant -> (folder, metrics)


@dataclass(frozen=True)
class Media:
    """A picture or video; `source` is a data URI, `kind` its MIME type."""

    caption: str
    kind: str
    source: str

    @classmethod
    def of(cls, caption: str, content: bytes, kind: str = PICTURE) -> "Media":
        return cls(caption, kind, f"data:{kind};base64,{base64.b64encode(content).decode()}")

    @classmethod
    def of_file(cls, caption: str, path: Path) -> "Media":
        return cls.of(caption, path.read_bytes(), VIDEO if path.suffix == ".mp4" else PICTURE)


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
    """The chapters about a folder, whose kind is told by the files in it."""
    for file, tell in KINDS.items():
        if (path / file).is_file():
            return tell(path)
    raise UserError(
        f"{path} is no folder of a run, of an evaluation or of tables; give one that has "
        f"{', '.join(KINDS)}"
    )


def evaluations(run: Path) -> Evaluations:
    """The newest evaluation of each variant of a run's `last` checkpoint.

    The name of a variant says so if the checkpoint has become another one since.
    """
    found: Evaluations = {}
    last = run / "last.safetensors"
    files = (run.parents[1] / "eval").glob("*/metrics.json")
    for file in sorted(files, key=lambda path: path.stat().st_mtime):
        metrics = read_json(file)
        if Path(metrics["checkpoint"]).resolve() == last.resolve():
            variant = metrics["settings"]["eval_variant_name"] or "as trained"
            found[variant] = (file.parent, metrics)
    return {
        variant if is_current(metrics, last) else f"{variant}, {EARLIER}": (folder, metrics)
        for variant, (folder, metrics) in found.items()
    }


def text(run: Path) -> str:
    """A line per evaluation of a run, each metric's mean with its 95 % interval; then the files.

    Raises `UserError` if there is none.
    """
    found = evaluations(run)
    if not found:
        made_by = f"evaluate.py eval_checkpoint={run}"
        raise UserError(f"no evaluations of {run}; make one with {made_by}")
    (_, newest), *_ = found.values()
    headline = world_class(newest["settings"]["task"]).headline
    known = set.intersection(*(set(metrics["summary"]) for _, metrics in found.values()))
    columns = [name for name in (headline, *MORE_METRICS) if name in known]
    rows = [["", "updates", "episodes", *columns]]
    for variant, (_, metrics) in found.items():
        figures = [metrics["summary"][name] for name in columns]
        cells = [f"{f['mean']:.2f} [{f['low']:.2f}, {f['high']:.2f}]" for f in figures]
        rows.append([variant, str(metrics["updates"]), str(metrics["episodes"]), *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return "\n".join([*lines, "", *map(str, _files(run, found))])


def _files(run: Path, found: Evaluations) -> list[Path]:
    """Files to look at: curves, videos, pictures (of the encoder's last epoch, too), episodes."""
    names = ("video.mp4", "strip.png", "episodes.csv")
    wanted = [run / "curves.png", *(folder / n for folder, _ in found.values() for n in names)]
    encoders = [metrics["settings"].get("rep_model_checkpoint") for _, metrics in found.values()]
    for encoder in dict.fromkeys(filter(None, encoders)):
        wanted += sorted(Path(encoder, "pictures").glob("*.png"))[-1:]
    return [path for path in wanted if path.exists()]


def _tables(folder: Path) -> list[Part]:
    from common.paper import records
    from common.paper.comparison import TABLES
    from common.paper.pictures import draw_curves, draw_table
    from common.paper.tables import sections, tables_of

    data = records.load(folder)
    parts = []
    for name, table in tables_of(data).items():
        picture = Media.of(TABLES[name].title, draw_table(name, table, data.changes))
        parts.append(Part(TABLES[name].title, [picture], sections(table, TABLES[name])))
    if len(data.curves):
        note = "Mean over seeds with the 95 % interval of its bootstrap."
        parts.append(Part("Learning curves", [Media.of(note, draw_curves(data.curves))], []))
    return parts


def _run(folder: Path) -> list[Part]:
    """A training run, then the newest evaluation of each variant of its `last` checkpoint."""
    settings = read_json(folder / "config.json")
    media = [Media.of("Training curves", draw_training_curves(folder))]
    filmed = sorted(folder.glob("video_*.mp4"), key=lambda path: int(path.stem[6:]))
    if filmed:
        caption = f"Evaluation after {filmed[-1].stem[6:]} updates"
        media.append(Media.of_file(caption, filmed[-1]))
    provenance = read_json(folder / "provenance.json")
    data = _data(next((s["data"] for s in reversed(provenance) if s.get("data")), None))
    facts = _facts(settings, provenance[-1], {"starts": len(provenance)} | data)
    tables = [facts, *_rows(folder / "eval.csv", "Evaluations during training")]
    parts = [Part(f"Run {folder.name}", media, [*tables, *_settings(settings)])]
    for variant, (found, _) in evaluations(folder).items():
        (part,) = _evaluation(found)
        earlier = f", {EARLIER}" if variant.endswith(EARLIER) else ""
        parts.append(replace(part, title=part.title + earlier))
    return parts


def _evaluation(folder: Path) -> list[Part]:
    metrics = read_json(folder / "metrics.json")
    captions = {
        "video.mp4": "The first episodes: their goals, then what happens",
        "strip.png": "Moments of an episode, then its goal",
    }
    media = [
        Media.of_file(caption, folder / name)
        for name, caption in captions.items()
        if (folder / name).is_file()
    ]
    more = {name: metrics[name] for name in ("checkpoint", "updates", "env_steps", "seconds")}
    more |= _data(metrics.get("data"))
    summaries = {"All episodes": metrics["summary"]}
    summaries |= {f"Task {task}": found for task, found in metrics.get("tasks", {}).items()}
    tables = [
        *(_summary(title, found) for title, found in summaries.items()),
        *_rows(folder / "episodes.csv", "Episodes"),
        _facts(metrics["settings"], metrics["provenance"], more),
        *_settings(metrics["settings"]),
    ]
    return [Part(f"Evaluation {folder.name}", media, tables)]


# File that is in folders of one kind only -> what tells about them; the first that fits holds.
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
    """The agent and its data, and on which machine which code ran."""
    git = provenance["git"]
    facts = {
        "agent": settings["agent"],
        "task": settings["task"],
        "seed": settings["seed"],
        "data": settings["train_dataset_name"] or "its own episodes",
        **more,
        "date": provenance["started"],
        "commit": git["commit"] + ", files differed" * git["dirty"] if git else "unknown",
        "device": provenance["device_name"],
        "system": provenance["system"],
        "versions": ", ".join(f"{k} {v}" for k, v in provenance["versions"].items()),
    }
    rows = [[name, str(value)] for name, value in facts.items()]
    return Section("How", "", ["", ""], rows, numbers=2)


def _data(sources: Sources | None) -> dict[str, str]:
    """The data that were learned from, by kind, as far as it is known."""
    return {name: describe_source(one) for name, one in (sources or {}).items()}


def _settings(settings: Mapping[str, Any]) -> list[Section]:
    """The settings that differ from `config.yaml`, then all."""
    ours, defaults = dotted(settings), dotted(json.loads(json.dumps(compose().raw)))
    changed = {key: value for key, value in ours.items() if value != defaults.get(key)}
    return [
        Section(title, "", ["setting", "value"], [[k, show(v)] for k, v in rows.items()], 2, folded)
        for title, rows, folded in (
            ("Settings unlike config.yaml", changed, False),
            ("All settings", ours, True),
        )
    ]


def _rows(file: Path, title: str) -> list[Section]:
    """A CSV file as a table with shortened numbers, if it is there."""
    columns = read_csv(file)
    if not columns:
        return []
    rows = [
        [f"{value:.0f}" if value.is_integer() else f"{value:.4g}" for value in row]
        for row in zip(*columns.values(), strict=True)
    ]
    return [Section(title, "", list(columns), rows, numbers=0)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make one HTML page about runs.")
    parser.add_argument("paths", nargs="+", type=Path, help="folders of runs or tables")
    parser.add_argument("--to", type=Path, help="the file; by default report.html in the first")
    parser.add_argument("--text", action="store_true", help="print results of runs, make no page")
    options = parser.parse_args(arguments)
    with one_line_errors():
        if options.text:
            print(*map(text, options.paths), sep="\n\n")
            return
        target = options.to or options.paths[0] / "report.html"
        check_path(target.with_name(f".{target.name}.tmp"), "--to")
        page = make_report(options.paths)
        with atomic_write(target) as file:
            file.write(page.encode())
        print(target)


if __name__ == "__main__":
    main()
