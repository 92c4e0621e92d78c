"""The figures that the paper reports: `results/published.csv`."""

import csv
from dataclasses import dataclass
from pathlib import Path

from common.config import ROOT

PUBLISHED = ROOT / "results" / "published.csv"


@dataclass(frozen=True)
class Published:
    """A figure with its standard deviation, None if it has none, and where it stands."""

    mean: float
    sd: float | None
    source: str


def read_published(path: Path = PUBLISHED) -> dict[tuple[str, str, str, str], Published]:
    """The figures by (experiment, agent, variant, metric)."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            (row["experiment"], row["agent"], row["variant"], row["metric"]): Published(
                float(row["mean"]), float(row["sd"]) if row["sd"] else None, row["source"]
            )
            for row in csv.DictReader(file)
        }
