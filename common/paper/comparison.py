"""Layouts of the tables: the runs that belong to each, and the methods that it compares."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from common.paper.records import Published
from common.paper.statistics import Spread, spread

# In the order of the tables; others follow by name.
EXPERIMENTS = {
    "ppp-state": "PPP-Cube, state",
    "ppp-image": "PPP-Cube, images",
    "stack-state": "Stack-Cube, state",
    "stack-image": "Stack-Cube, images",
    "scene-state": "Scene, state",
    "scene-image": "Scene, images",
    "tetris-state": "Push-Tetris, state",
    "tetris-image": "Push-Tetris, images",
}
AGENTS = {
    "ec-sgiql": "EC-SGIQL",
    "ec-sgiql-awr": "EC-SGIQL AWR",
    "ec-iql": "EC-IQL",
    "ec-diffuser": "EC-Diffuser",
    "hiql": "HIQL",
    "iql": "IQL",
    "iql-rgb": "IQL on raw images",
}
VARIANTS = {
    "": "as trained",
    "auto-radius": "automatic radius",
    "max-value": "max value",
    "random-sample": "random sample",
    "no-subgoals": "no subgoals",
    "changed-entities": "as trained",
}
RANDOM = "random-policy"  # in the world of the agent whose variant it is
NO_VARIANT = "-"
ABLATIONS = ("auto-radius", "max-value", "random-sample", "no-subgoals")
OTHER_NUMBERS = re.compile(r"\d+-\w+|two-stacks")  # of objects


@dataclass(frozen=True)
class Layout:
    """A table.

    Attributes:
        title, note: of the table; the note says what its numbers are.
        metric: a column of `records.RUNS`. unit: its values are multiplied by this, and shown with
            `digits`.
        shows: whether a variant of an agent belongs to it.
        with_trained: whether the agents of these variants are shown as trained, too.
        rivals: kind of methods that are compared: "agent", or "variant" of an agent; None: none.
    """

    title: str
    note: str
    metric: str
    shows: Callable[[str], bool]
    with_trained: bool = False
    rivals: str | None = "agent"
    unit: float = 100.0
    digits: int = 1

    def show(self, value: float) -> str:
        """A value in the table's unit; a dash for NaN."""
        return "-" if value != value else f"{value * self.unit:.{self.digits}f}"


SUCCESS = "Success rate in %: goals reached at the last step of an episode."
TABLES = {
    "main": Layout("Methods", SUCCESS, "success", lambda variant: variant in ("", RANDOM)),
    "ablations": Layout(
        "The method without its parts",
        f"{SUCCESS} The same checkpoints, other choices of subgoals.",
        "success",
        lambda variant: variant in ABLATIONS,
        with_trained=True,
        rivals="variant",
    ),
    "subgoals": Layout(
        "Entities changed by a subgoal",
        "Mean number of objects that the first subgoal of an episode moves by more than 0.04.",
        "entities_changed",
        lambda variant: variant == "changed-entities",
        rivals=None,
        unit=1.0,
        digits=2,
    ),
    "generalization": Layout(
        "Other numbers of objects than in training",
        SUCCESS,
        "success",
        lambda variant: bool(OTHER_NUMBERS.fullmatch(variant)),
        with_trained=True,
    ),
}


@dataclass(frozen=True)
class Cell:
    """The runs of one figure of a table, rows of `records.RUNS`, and the published figure."""

    checkpoint: str
    experiment: str
    agent: str
    variant: str
    runs: pd.DataFrame
    metric: str
    published: Published | None

    @property
    def scores(self) -> list[float]:
        return self.runs[self.metric].tolist()

    @property
    def spread(self) -> Spread:
        return spread([self.scores])

    @property
    def titles(self) -> tuple[str, str, str]:
        """Experiment, agent and variant for people."""
        variant = VARIANTS.get(self.variant, self.variant.replace("-", " "))
        experiment = EXPERIMENTS.get(self.experiment, self.experiment)
        if self.variant == RANDOM:
            return experiment, variant, NO_VARIANT
        return experiment, AGENTS.get(self.agent, self.agent), variant


def cells(
    runs: pd.DataFrame, layout: Layout, published: Mapping[tuple[str, str, str, str], Published]
) -> list[Cell]:
    """The cells of a table in its order, the `last` checkpoints before the `best`."""
    shown = runs.variant.map(layout.shows).astype(bool)
    if layout.with_trained:
        agents = runs.experiment + "/" + runs.agent
        shown |= (runs.variant == "") & agents.isin(agents[shown])
    groups = runs[shown].groupby(["checkpoint", "experiment", "agent", "variant"])
    return [
        Cell(*key, own, layout.metric, published.get((*key[1:], layout.metric)))
        for key, own in sorted(groups, key=lambda group: _position(*group[0]))
    ]


def _position(checkpoint: str, experiment: str, agent: str, variant: str) -> tuple:
    return (
        checkpoint != "last",
        rank(experiment, EXPERIMENTS),
        variant == RANDOM,
        rank(agent, AGENTS),
        rank(variant, VARIANTS),
    )


def rank(name: str, known: Mapping[str, str]) -> tuple[int, str]:
    """A key for the order of the tables: known names as they are listed, then others by name."""
    return (list(known).index(name) if name in known else len(known)), name


def differ(titles: Iterable[str]) -> bool:
    """True of several titles, which have to be told then."""
    return len(set(titles) - {NO_VARIANT}) > 1


Strata = dict[str, Sequence[float]]  # name of an experiment -> scores of its runs (R,)


def rivals(table: Sequence[Cell], layout: Layout) -> dict[str, Strata]:
    """The scores of the methods that a table compares, the first of them against the others.

    A method is an agent, then every experiment and number of objects is a stratum; or a variant,
    then every experiment and agent is one.
    """
    last = [cell for cell in table if cell.checkpoint == "last"]
    chosen, other = (1, 2) if layout.rivals == "agent" else (2, 1)  # places in `titles`
    several = differ(cell.titles[other] for cell in last)
    methods: dict[str, Strata] = {}
    for cell in last:
        where = f"{cell.titles[0]}, {cell.titles[other]}" if several else cell.titles[0]
        methods.setdefault(cell.titles[chosen], {})[where] = cell.scores
    return methods
