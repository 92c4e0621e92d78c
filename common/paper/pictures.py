"""Pictures beside the tables, as PNG bytes."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from common.paper.comparison import AGENTS, EXPERIMENTS, Cell, differ, rank
from common.paper.records import CELL
from common.paper.statistics import spread
from common.runs.curves import as_png

WIDTH, HEIGHT = 4.6, 3.2  # inches of a panel
PANELS_PER_ROW = 3
LEAST_BARS = 5  # for which a panel has room even if there are less
PUBLISHED = {"marker": "D", "facecolors": "none", "edgecolors": "black", "zorder": 3}


def draw_table(name: str, table: Sequence[Cell], changes: pd.DataFrame) -> bytes:
    """The picture of a table: what it shows of the `last` checkpoints, a panel per experiment."""
    last = [cell for cell in table if cell.checkpoint == "last"] or list(table)
    experiments = _ordered((cell.experiment for cell in last), EXPERIMENTS)
    draw = {"subgoals": _changes_panel(changes), "generalization": _objects_panel}
    panel = draw.get(name, _bars_panel)
    return _panels(
        experiments, lambda axes, e: panel(axes, [cell for cell in last if cell.experiment == e])
    )


def draw_curves(curves: pd.DataFrame) -> bytes:
    """Success during training against updates: mean over seeds and its 95 % interval."""

    def panel(axes: Axes, experiment: str) -> None:
        own = curves[curves.experiment == experiment]
        for agent in _ordered(own.agent, AGENTS):
            points = own[own.agent == agent].groupby("updates").success
            at = {updates: [100 * s for s in scores] for updates, scores in points}
            _band(axes, at, AGENTS.get(agent, agent))
        axes.set(xlabel="updates", ylabel="success, %", xlim=(0, None), ylim=(-2, 102))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.legend(fontsize=7)

    return _panels(_ordered(curves.experiment, EXPERIMENTS), panel)


def _bars_panel(axes: Axes, cells: Sequence[Cell]) -> None:
    """A bar up to the mean, each run a dot, the interval of the IQM, the paper's figure."""
    for place, cell in enumerate(cells):
        figures, scores = cell.spread, 100 * np.array(cell.scores)
        axes.barh(place, 100 * figures.mean, height=0.6, color="tab:blue", alpha=0.35)
        axes.hlines(place, 100 * figures.low, 100 * figures.high, color="tab:blue", linewidth=2)
        axes.scatter(scores, np.full(len(scores), place), s=14, color="tab:blue", zorder=3)
        if cell.published:
            label = None if axes.get_legend_handles_labels()[0] else "published"
            axes.scatter(100 * cell.published.mean, place, label=label, **PUBLISHED)
    axes.set_yticks(range(len(cells)), [_label(cell, cells) for cell in cells], fontsize=8)
    axes.set(xlabel="success, %", xlim=(0, 102), ylim=(max(len(cells), LEAST_BARS) - 0.4, -0.6))
    if axes.get_legend_handles_labels()[0]:  # above the axes, where no marker lies
        axes.legend(fontsize=7, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)


def _label(cell: Cell, cells: Sequence[Cell]) -> str:
    """The agent, and its variant where the panel has several."""
    _, agent, variant = cell.titles
    return f"{agent}, {variant}" if differ(other.titles[2] for other in cells) else agent


def _objects_panel(axes: Axes, cells: Sequence[Cell]) -> None:
    """Success against the number of objects; a circle around the number of the training."""
    for agent in _ordered((cell.agent for cell in cells), AGENTS):
        own = [c for c in cells if c.agent == agent and (not c.variant or c.variant[0].isdigit())]
        at = {cell.runs.objects.iloc[0]: [100 * s for s in cell.scores] for cell in own}
        _band(axes, at, AGENTS.get(agent, agent))
        for cell in own:
            if not cell.variant:
                place = cell.runs.objects.iloc[0], 100 * cell.spread.mean
                axes.scatter(*place, s=90, facecolors="none", edgecolors="black")
    axes.set(xlabel="objects (circle: as trained)", ylabel="success, %", ylim=(-2, 102))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=7)


def _changes_panel(changes: pd.DataFrame) -> Callable[[Axes, Sequence[Cell]], None]:
    """Share of the episodes by the number of objects that their first subgoal moves."""

    def panel(axes: Axes, cells: Sequence[Cell]) -> None:
        width = 0.8 / len(cells)
        for place, cell in enumerate(cells):
            mine = (changes[CELL] == [cell.experiment, cell.agent, cell.variant]).all(axis=1)
            own = changes[mine].groupby("changed").episodes.sum()
            places = own.index.to_numpy() + (place - (len(cells) - 1) / 2) * width
            axes.bar(places, 100 * own / own.sum(), width, label=cell.titles[1])
        axes.set(xlabel="objects that a subgoal moves", ylabel="episodes, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=7)

    return panel


def _band(axes: Axes, values: dict[int, list[float]], label: str) -> None:
    """A line through the means of runs at each place, and their 95 % intervals."""
    places = sorted(values)
    spreads = [spread([values[place]]) for place in places]
    (line,) = axes.plot(places, [s.mean for s in spreads], marker="o", markersize=3, label=label)
    ends = [[s.low for s in spreads], [s.high for s in spreads]]
    axes.fill_between(places, *ends, color=line.get_color(), alpha=0.2, linewidth=0)


def _panels(experiments: Sequence[str], panel: Callable[[Axes, str], None]) -> bytes:
    rows = -(-len(experiments) // PANELS_PER_ROW)
    columns = -(-len(experiments) // rows)  # rows as even as they can be
    figure = Figure((WIDTH * columns, HEIGHT * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, experiment in enumerate(experiments, start=1):
        axes = figure.add_subplot(rows, columns, place)
        panel(axes, experiment)
        axes.set_title(EXPERIMENTS.get(experiment, experiment), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return as_png(figure)


def _ordered(names: Iterable[str], known: dict[str, str]) -> list[str]:
    """Each name once, in the order of the tables."""
    return sorted(set(names), key=lambda name: rank(name, known))
