"""Tables of the paper from runs: `python -m common.paper.tables SOURCE [FOLDER]`.

    python -m common.paper.tables output results/mine         # from the run folders under output/
    python -m common.paper.tables output results/mine --add   # beside what is there already
    python -m common.paper.tables results/mine                # again, from the CSV files kept there
    python -m common.paper.tables results/theirs results/mine --add   # both together

Each table is NAME.md, .csv, .tex and .png, with NAME one of main, ablations, subgoals,
generalization, and there is curves.png; a table without runs is left out. `--table NAME` makes one.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from common.evaluation.intervals import CONFIDENCE
from common.foundation.errors import UserError, one_line_errors
from common.foundation.files import atomic_write
from common.paper import records
from common.paper.comparison import TABLES, Cell, Layout, Strata, cells, rivals
from common.paper.formats import Section, csv_text, latex, markdown
from common.paper.records import Records, read_published
from common.paper.statistics import improvement, spread

INTERVAL = f"{CONFIDENCE:.0%} interval".replace("%", " %")
SPREAD_NOTE = (
    "Mean and standard deviation over training seeds; interquartile mean (IQM) with the "
    f"{INTERVAL} of a stratified bootstrap over them. Published: the paper's, of its own scale."
)


def write_tables(data: Records, folder: Path, names: Sequence[str] = tuple(TABLES)) -> list[Path]:
    """Write the tables that have runs, and the learning curves; return the files.

    Raises `UserError` if there are no runs for any of them.
    """
    from common.paper.pictures import draw_curves, draw_table

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, table in tables_of(data, names).items():
        title, parts = TABLES[name].title, sections(table, TABLES[name])
        content = {
            "md": markdown(title, parts, [f"{name}.png"]).encode(),
            "csv": csv_text([_numbers(cell) for cell in table]).encode(),
            "tex": latex(title, parts).encode(),
            "png": draw_table(name, table, data.changes),
        }
        paths += [_write(folder / f"{name}.{kind}", text) for kind, text in content.items()]
    if data.curves:
        paths.append(_write(folder / "curves.png", draw_curves(data.curves)))
    return paths


def tables_of(data: Records, names: Sequence[str] = tuple(TABLES)) -> dict[str, list[Cell]]:
    """The cells of each of these tables that has runs; raises `UserError` if none has."""
    published = read_published()
    found = {name: cells(data.outcomes, TABLES[name], published) for name in names}
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
        chosen = [cell for cell in table if cell.checkpoint == checkpoint]
        if chosen:
            note = f"{layout.note} {SPREAD_NOTE} These are {about}."
            parts.append(_figures(f"Checkpoint `{checkpoint}`", note, chosen, layout))
    if layout.rivals:
        methods = rivals(table, layout)
        parts += [part for part in (_overall(methods, layout), _wins(methods)) if part]
    return [*parts, _conditions(table), _runs(table, layout)]


def _figures(title: str, note: str, chosen: Sequence[Cell], layout: Layout) -> Section:
    columns = ["experiment", "method", "variant", "runs", "updates", "mean ± s.d."]
    columns += [f"IQM [{INTERVAL}]", "published"]
    rows = []
    for cell in chosen:
        figures, show = cell.spread, layout.show
        theirs = "-"
        if cell.published:
            theirs = _with_sd(cell.published.mean, cell.published.sd, layout)
        rows.append(
            [
                *cell.titles,
                str(figures.runs),
                _range([outcome.updates for outcome in cell.outcomes]),
                _with_sd(figures.mean, figures.sd, layout),
                f"{show(figures.iqm)} [{show(figures.low)}, {show(figures.high)}]",
                theirs,
            ]
        )
    return Section(title, note, columns, rows, numbers=3)


def _with_sd(mean: float, sd: float | None, layout: Layout) -> str:
    """A mean with its standard deviation, if it has one (one run has none)."""
    if sd is None or sd != sd:
        return layout.show(mean)
    return f"{layout.show(mean)} ± {layout.show(sd)}"


def _range(values: Sequence[float | None], digits: int = 0) -> str:
    """The value that all runs share, or the smallest and the largest; a dash for unknown ones."""
    known = [f"{value:,.{digits}f}" for value in sorted(v for v in values if v is not None)]
    if not known:
        return "-"
    return known[0] if known[0] == known[-1] else f"{known[0]} to {known[-1]}"


def _overall(methods: dict[str, Strata], layout: Layout) -> Section | None:
    """Every method over all experiments, of those that have them all; None if there is only one."""
    experiments = {name for strata in methods.values() for name in strata}
    if len(experiments) < 2:
        return None
    rows = []
    for method, strata in methods.items():
        if strata.keys() == experiments:
            figures, show = spread(list(strata.values())), layout.show
            interval = f"[{show(figures.low)}, {show(figures.high)}]"
            rows.append([method, str(figures.runs), f"{show(figures.iqm)} {interval}"])
    columns = ["method", "runs", f"IQM [{INTERVAL}]"]
    note = f"Over {len(experiments)} experiments or settings, runs drawn anew within each."
    return Section("All together", note, columns, rows, numbers=1) if rows else None


def _wins(methods: dict[str, Strata]) -> Section | None:
    """Probability that the first method beats another, on each experiment and on all."""
    (first, ours), *others = methods.items()
    rows = []
    for name, theirs in others:
        common = [experiment for experiment in ours if experiment in theirs]
        choices = [(experiment, [experiment]) for experiment in common]
        choices += [("all of these", common)] if len(common) > 1 else []
        for label, chosen in choices:
            value, low, high = improvement([ours[e] for e in chosen], [theirs[e] for e in chosen])
            counts = [sum(len(s[e]) for e in chosen) for s in (ours, theirs)]
            interval = "-" if low != low else f"[{low:.2f}, {high:.2f}]"
            runs = f"{counts[0]} and {counts[1]}"
            rows.append([f"{first} over {name}", label, runs, f"{value:.2f}", interval])
    columns = ["methods", "where", "runs", "probability", INTERVAL]
    note = "That a run of the one method scores higher than a run of the other; ties count half."
    return Section("Probability of improvement", note, columns, rows, 2) if rows else None


def _conditions(table: Sequence[Cell]) -> Section:
    """What stands behind each figure: data, episodes, hardware."""
    columns = ["experiment", "method", "variant", "objects", "data", "transitions", "updates"]
    columns += ["episodes", "of steps", "trained on", "hours a run"]
    rows = []
    for cell in table:
        if cell.checkpoint == "last":
            of = cell.outcomes
            rows.append(
                [
                    *cell.titles,
                    _range([o.objects for o in of]),
                    ", ".join(sorted({o.data for o in of})),
                    _range([o.transitions for o in of]),
                    _range([o.updates for o in of]),
                    _range([o.episodes for o in of]),
                    _range([o.episode_steps for o in of]),
                    ", ".join(sorted({o.train_device for o in of})) or "-",
                    _range([o.train_hours for o in of], digits=2),
                ]
            )
    note = "Hours are of training, without evaluations, on a machine that may have had other work."
    return Section("Conditions", note, columns, rows, numbers=3, appendix=True)


def _runs(table: Sequence[Cell], layout: Layout) -> Section:
    columns = ["cell", "checkpoint", "seed", "score", "run", "evaluation", "commit", "config"]
    rows = [
        [
            outcome.cell,
            outcome.checkpoint,
            str(outcome.seed),
            layout.show(score),
            outcome.run,
            outcome.evaluation,
            outcome.commit,
            outcome.config,
        ]
        for cell in table
        for outcome, score in zip(cell.outcomes, cell.scores, strict=True)
    ]
    note = "Folders under `train/` and `eval/`; commit of the evaluating code, + if files differed."
    return Section("Runs", note, columns, rows, numbers=8, appendix=True)


def _numbers(cell: Cell) -> dict[str, str | float | None]:
    """A cell as a row of numbers for other programs, in the metric's own unit."""
    figures, theirs = cell.spread, cell.published
    return {
        "experiment": cell.experiment,
        "agent": cell.agent,
        "variant": cell.variant,
        "checkpoint": cell.checkpoint,
        **{k: round(v, 6) for k, v in vars(figures).items()},
        "published_mean": theirs.mean if theirs else None,
        "published_sd": theirs.sd if theirs else None,
        "published_source": theirs.source if theirs else None,
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
        made = write_tables(records.load(folder), folder, names)
        print(*made, sep="\n")


def _kept(folder: Path) -> bool:
    """Whether a folder has the CSV files, not runs."""
    return (folder / "runs.csv").is_file()


def _gather(source: Path, folder: Path, add: bool) -> None:
    """Keep what the runs under `source`, or its CSV files, say as CSV files in `folder`.

    Args:
        add: whether what `folder` has of other runs stays.
    """
    data, foreign = (records.load(source), []) if _kept(source) else records.gather(source)
    if add:
        data = records.combine(records.load(folder), data)
    for name in foreign:
        print(f"not in a table, for its eval_variant_name is of no cell: {name}")
    folder.mkdir(parents=True, exist_ok=True)
    print(*records.save(folder, data), sep="\n")


if __name__ == "__main__":
    main()
