"""Training curves of a run as one picture: `python -m common.runs.curves RUN_FOLDER`."""

import sys
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from common.foundation import files
from common.foundation.errors import UserError, one_line_errors

Columns = dict[str, np.ndarray]  # name -> (rows,)

LOSS = "/loss"  # ends the columns of train.csv that all have panels
PANELS = {  # other columns -> title
    "value/mean": "mean value",
    "policy/imitation": "squared error to the data's actions",
    "diffuser/first_action": "error of the first action",
    "diffuser/states": "error of the states",
}
COLUMNS = 4  # panels side by side
PANEL_SIZE = 3.2, 2.5  # inches
RESOLUTION = 120  # dots per inch


def read_csv(path: Path) -> Columns:
    """Columns of a metrics file, empty if it is missing; cells without a number become NaN."""
    whole = files.read_csv(path) if path.is_file() else []
    rows = [row for row in whole if None not in row.values()]
    names = rows[0] if rows else ()
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}


def training_curves(train: Columns, evaluation: Columns) -> Figure:
    """Success with its 95 % interval, every loss, and the panels of `PANELS` that were logged."""
    titles = _titles(train)
    panels = list(titles)
    with_success = "success" in evaluation
    count = len(panels) + with_success
    rows, columns = -(-count // COLUMNS), min(count, COLUMNS)
    figure = Figure((PANEL_SIZE[0] * columns, PANEL_SIZE[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    places = iter(range(1, count + 1))
    if with_success:
        _draw_success(figure.add_subplot(rows, columns, next(places)), evaluation)
    for name in panels:
        axes = figure.add_subplot(rows, columns, next(places))
        axes.plot(train["step"], train[name], linewidth=1.2)
        _label(axes, titles[name])
    return figure


def _titles(train: Columns) -> dict[str, str]:
    """Columns that get a panel, with its title."""
    losses = {name: name.replace("/", " ") for name in train if name.endswith(LOSS)}
    return losses | {name: title for name, title in PANELS.items() if name in train}


def _draw_success(axes: Axes, evaluation: Columns) -> None:
    steps, success = evaluation["step"], evaluation["success"]
    axes.plot(steps, success, marker="o", markersize=3, color="tab:green")
    if {"success_low", "success_high"} <= evaluation.keys():
        low, high = evaluation["success_low"], evaluation["success_high"]
        axes.fill_between(steps, low, high, color="tab:green", alpha=0.2, linewidth=0)
    axes.set_ylim(-0.02, 1.02)
    _label(axes, "success rate, 95 % interval")


def _label(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("updates", fontsize=8)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 20k
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def save_training_curves(folder: Path) -> Path:
    """Draw the curves of a run folder into `curves.png` there, see `draw_training_curves`."""
    picture = draw_training_curves(folder)
    path = folder / "curves.png"
    with files.atomic_write(path) as file:
        file.write(picture)
    return path


def draw_training_curves(folder: Path) -> bytes:
    """Draw `train.csv` and `eval.csv` of a run folder as a PNG.

    Raises `UserError` if there is nothing to draw yet.
    """
    train, evaluation = read_csv(folder / "train.csv"), read_csv(folder / "eval.csv")
    if not (_titles(train) or "success" in evaluation):
        raise UserError(f"{folder} has no metrics yet; give the folder of a training run")
    return as_png(training_curves(train, evaluation))


def as_png(figure: Figure) -> bytes:
    """The bytes of a figure's PNG file."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=RESOLUTION)
    return buffer.getvalue()


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m common.runs.curves RUN_FOLDER")
    with one_line_errors():
        print(save_training_curves(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
