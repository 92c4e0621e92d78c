"""Tables of the paper from runs: `python -m common.paper.tables SOURCE [FOLDER]`.

    python -m common.paper.tables output results/mine         # from the run folders under output/
    python -m common.paper.tables output results/mine --add   # beside what is there already
    python -m common.paper.tables results/mine                # again, from the CSV files kept there
    python -m common.paper.tables results/theirs results/mine --add   # both together

Each table is NAME.md, .csv, .tex and .png, with NAME one of main, ablations, subgoals,
generalization, and there is curves.png; a table without runs is left out. `--table NAME` makes one.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from common.evaluation.intervals import CONFIDENCE
from common.foundation.errors import UserError, one_line_errors
from common.foundation.files import atomic_write, make_folder
from common.paper import records
from common.paper.comparison import TABLES, Cell, Layout, Strata, cells, rivals
from common.paper.formats import Section, latex, markdown
from common.paper.records import Records, read_published, write_frame
from common.paper.statistics import Spread, improvement, spread

INTERVAL = f"{CONFIDENCE:.0%} interval".replace("%", " %")
DIFFERS = ", of different content"
PUBLISHED_COLUMNS = ("published_mean", "published_sd", "published_source")
SPREAD_NOTE = (
    "Mean and standard deviation over training seeds; interquartile mean (IQM) with the "
    f"{INTERVAL} of a stratified bootstrap over them. Published: the paper's, of its own scale."
)


def write_tables(data: Records, folder: Path, names: Sequence[str] = tuple(TABLES)) -> list[Path]:
    """Write the tables that have runs, and the learning curves; return the files.

    Raises `UserError` if there are no runs for any of them.
    """
    from common.paper.pictures import draw_curves, draw_table

    make_folder(folder, "FOLDER")
    paths = []
    for name, table in tables_of(data, names).items():
        title, parts = TABLES[name].title, sections(table, TABLES[name])
        content = {
            "md": markdown(title, parts, [f"{name}.png"]).encode(),
            "tex": latex(title, parts).encode(),
            "png": draw_table(name, table, data.changes),
        }
        paths += [_write(folder / f"{name}.{kind}", text) for kind, text in content.items()]
        paths.append(write_frame(folder / f"{name}.csv", pd.DataFrame(map(_numbers, table))))
    if len(data.curves):
        paths.append(_write(folder / "curves.png", draw_curves(data.curves)))
    return paths


def tables_of(data: Records, names: Sequence[str] = tuple(TABLES)) -> dict[str, list[Cell]]:
    """The cells of each of these tables that has runs; raises `UserError` if none has."""
    published = read_published()
    found = {name: cells(data.runs, TABLES[name], published) for name in names}
    if not any(found.values()):
        raise UserError(f"no runs for {', '.join(names)}; make some with commands/reproduce.sh")
    return {name: table for name, table in found.items() if table}


def sections(table: Sequence[Cell], layout: Layout) -> list[Section]:
    """A table as text: its figures, comparisons, how they were made, and the runs behind them."""
    parts = []
    for checkpoint, about in (
        ("last", "the agents at the end of training"),
        ("best", "the agents of the best evaluation during training, chosen on other episodes"),
    ):
        note = f"{layout.note} {SPREAD_NOTE} These are {about}."
        rows = [_figures(cell, layout) for cell in table if cell.checkpoint == checkpoint]
        parts.append((f"Checkpoint `{checkpoint}`", note, rows, 3))
    if layout.rivals:
        methods = rivals(table, layout)
        parts += [_overall(methods, layout), _wins(methods)]
    found = [Section.of(*part[:3], numbers=part[3]) for part in parts if part[2]]
    return [*found, *_appendices(table, layout)]


def _figures(cell: Cell, layout: Layout) -> dict[str, str]:
    figures, show, theirs = cell.spread, layout.show, cell.published
    return {
        **_titles(cell),
        "runs": str(figures.runs),
        "updates": _range(cell.runs.updates),
        "mean ± s.d.": _with_sd(figures.mean, figures.sd, layout),
        f"IQM [{INTERVAL}]": _with_interval(figures, show),
        "published": _with_sd(theirs.mean, theirs.sd, layout) if theirs else "-",
    }


def _titles(cell: Cell) -> dict[str, str]:
    return dict(zip(("experiment", "method", "variant"), cell.titles, strict=True))


def _with_interval(figures: Spread, show: Callable[[float], str]) -> str:
    return f"{show(figures.iqm)} [{show(figures.low)}, {show(figures.high)}]"


def _with_sd(mean: float, sd: float, layout: Layout) -> str:
    """A mean with its standard deviation, if it has one (one run has none)."""
    return layout.show(mean) + (f" ± {layout.show(sd)}" if sd == sd else "")


def _range(values: pd.Series, digits: int = 0) -> str:
    """The value that all runs share, or the smallest and the largest; a dash for unknown ones."""
    if values.isna().all():
        return "-"
    least, most = (f"{value:,.{digits}f}" for value in (values.min(), values.max()))
    return least if least == most else f"{least} to {most}"


def _overall(methods: dict[str, Strata], layout: Layout) -> tuple:
    """Every method over all experiments, if there are several, of those that have them all."""
    experiments = {name for strata in methods.values() for name in strata}
    rows = []
    for method, strata in methods.items():
        if strata.keys() == experiments and len(experiments) > 1:
            figures = spread(list(strata.values()))
            interval = _with_interval(figures, layout.show)
            row = {"method": method, "runs": str(figures.runs), f"IQM [{INTERVAL}]": interval}
            rows.append(row)
    note = f"Over {len(experiments)} experiments or settings, runs drawn anew within each."
    return "All together", note, rows, 1


def _wins(methods: dict[str, Strata]) -> tuple:
    """Probability that the first method beats another, on each experiment and on all."""
    (first, ours), *others = methods.items()
    rows = []
    for name, theirs in others:
        common = [experiment for experiment in ours if experiment in theirs]
        choices = {experiment: [experiment] for experiment in common}
        choices |= {"all of these": common} if len(common) > 1 else {}
        for label, chosen in choices.items():
            mine, rival = ([strata[e] for e in chosen] for strata in (ours, theirs))
            value, low, high = improvement(mine, rival)
            row = {
                "methods": f"{first} over {name}",
                "where": label,
                "runs": f"{sum(map(len, mine))} and {sum(map(len, rival))}",
                "probability": f"{value:.2f}",
                INTERVAL: "-" if low != low else f"[{low:.2f}, {high:.2f}]",
            }
            rows.append(row)
    note = "That a run of the one method scores higher than a run of the other; ties count half."
    return "Probability of improvement", note, rows, 2


def _appendices(table: Sequence[Cell], layout: Layout) -> list[Section]:
    """Data, episodes and hardware behind each figure, and its runs."""
    conditions = [_conditions(cell) for cell in table if cell.checkpoint == "last"]
    note = "Hours are of training, without evaluations, on a machine that may have had other work."
    parts = [Section.of("Conditions", note, conditions, numbers=3, appendix=True)]
    runs = pd.concat([cell.runs.assign(score=cell.scores) for cell in table])
    rows = [
        {
            "cell": f"{run.experiment}/{run.agent}/{run.variant}".rstrip("/"),
            "checkpoint": run.checkpoint,
            "seed": str(run.seed),
            "score": layout.show(run.score),
            "run": run.run,
            "evaluation": run.evaluation,
            "commit": run.commit,
            "config": run.config,
        }
        for run in runs.itertuples()
    ]
    note = "Folders under `train/` and `eval/`; commit of the evaluating code, + if files differed."
    return [*parts, Section.of("Runs", note, rows, numbers=8, appendix=True)]


def _conditions(cell: Cell) -> dict[str, str]:
    runs = cell.runs
    contents = set(runs.data_content) - {""}
    return {
        **_titles(cell),
        "objects": _range(runs.objects),
        "data": ", ".join(sorted(set(runs.data))) + DIFFERS * (len(contents) > 1),
        "transitions": _range(runs.transitions),
        "updates": _range(runs.updates),
        "episodes": _range(runs.episodes),
        "of steps": _range(runs.episode_steps),
        "trained on": ", ".join(sorted(set(runs.train_device))) or "-",
        "hours a run": _range(runs.train_hours, digits=2),
    }


def _numbers(cell: Cell) -> dict[str, str | float | None]:
    """A cell as a row of numbers for other programs, in the metric's own unit."""
    theirs = cell.published or (None, None, None)
    return {
        **{key: getattr(cell, key) for key in ("experiment", "agent", "variant", "checkpoint")},
        **{key: round(value, 6) for key, value in vars(cell.spread).items()},
        **dict(zip(PUBLISHED_COLUMNS, theirs, strict=True)),
    }


def _write(path: Path, content: bytes) -> Path:
    with atomic_write(path) as file:
        file.write(content)
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make tables from runs.")
    parser.add_argument("source", type=Path, help="an output_dir, or a folder with runs.csv")
    parser.add_argument("folder", type=Path, nargs="?", help="where the tables of an output_dir go")
    parser.add_argument("--table", choices=TABLES, help="only this one")
    parser.add_argument("--add", action="store_true", help="keep FOLDER's other runs")
    options = parser.parse_args(arguments)
    names = [options.table] if options.table else list(TABLES)
    with one_line_errors():
        source = options.source
        folder = options.folder or (source if _kept(source) else source / "tables")
        if folder != source or not _kept(source):
            _gather(source, folder, options.add)
        data = records.load(folder)
        print(*write_tables(data, folder, names), *records.mixed(data.runs), sep="\n")


def _kept(folder: Path) -> bool:
    """True of a folder with the CSV files, not runs."""
    return (folder / "runs.csv").is_file()


def _gather(source: Path, folder: Path, add: bool) -> None:
    """Keep what the runs under `source`, or its CSV files, say as CSV files in `folder`.

    Args:
        add: whether what `folder` has of other runs stays.
    """
    make_folder(folder, "FOLDER")
    data, foreign = (records.load(source), []) if _kept(source) else records.gather(source)
    if not _kept(source):
        for line in records.outdated(data.runs, source):
            print(line)
    if add:
        data = records.combine(records.load(folder), data)
    for name in foreign:
        print(f"not in a table, for its eval_variant_name is of no cell: {name}")
    print(*records.save(folder, data), sep="\n")


if __name__ == "__main__":
    main()
