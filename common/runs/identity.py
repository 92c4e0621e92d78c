"""Identity of what runs learn from, by content: recorded, and compared when a run goes on.

Sources, ready for JSON, are what a run learns from by its kind (dataset, encoder, latents, ...):
`place`, where it lay, and `content`, hexadecimal digits that differ where its content does; of a
dataset also the `columns` that are read, and the number of `episodes` and `rows`. They stand in
every checkpoint and in `provenance.json`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.foundation.errors import UserError
from common.foundation.files import read_json
from common.runs.checkpoint import summary
from common.settings.inherit import DEFAULT_CHECKPOINT as LAST
from datasets.source import EpisodeSource

RECORD = "provenance.json"  # in a run's folder, a list with one entry per start
STARTS = ("start", "subgoal policy")  # checkpoints that a run, once begun, needs no more
DIGITS = 12  # of a content that are shown

Sources = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Origin:
    """Data that a run learns from, and lines about what has changed there."""

    sources: Sources = field(default_factory=dict)
    remarks: Sequence[str] = ()


def source(place: Any, content: str, **more: Any) -> dict[str, Any]:
    """An entry of `Sources`."""
    return {"place": str(place), "content": content, **more}


def dataset_source(
    dataset: EpisodeSource, columns: Sequence[str], split: str = "train", div: int = 1
) -> dict[str, Any]:
    """The first 1/`div` of the episodes of a split, of which these columns are read."""
    names, lengths = sorted({*columns, "terminals"}), dataset.lengths(split, div)
    counts = {"episodes": len(lengths), "rows": int(lengths.sum())}
    return source(dataset, dataset.digest(names, split, div), columns=names, **counts)


def recorded(folder: Path) -> Sources | None:
    """The sources that the `last` checkpoint of a run has learned from, if that is known.

    A checkpoint of an earlier version does not say it; the first start of this one does.
    """
    meta = summary(folder / LAST)[0] if (folder / LAST).is_file() else {}
    starts = read_json(folder / RECORD) if (folder / RECORD).is_file() else []
    found = [meta.get("data"), *(start.get("data") for start in reversed(starts))]
    return next(filter(None, found), None)


def compare(folder: Path, now: Sources, allowed: bool) -> Origin:
    """The sources of the run in `folder`, which goes on from its `last` checkpoint if it has one.

    Args:
        now: what its settings name at present.
        allowed: whether it may go on with other data than it has learned from.

    Raises `UserError` naming both if they are other data and that is not allowed.
    """
    if not (folder / LAST).is_file():
        return Origin(now)
    before = recorded(folder) or {}
    unknown = [name for name in now if not _comparable(before.get(name), now[name])]
    remarks = [f"{name} not recorded so far, from now on {describe(now[name])}" for name in unknown]
    for name, change in differences(before, now).items():
        if name not in STARTS and not allowed:
            raise UserError(
                f"{folder} learned from other data: {change}; bring the former back, train anew "
                "under another run_name or output_dir, or set allow_changed_data=true to go on "
                "with the latter"
            )
        remarks.append(f"changed: {change}")
    begun = {name: before[name] for name in STARTS if name in before}
    return Origin({**now, **begun}, remarks)


def differences(before: Sources | None, now: Sources) -> dict[str, str]:
    """A line for each kind of source whose content is known to be another one."""
    return {
        name: f"{name} {describe(was)}, now {describe(now[name])}"
        for name, was in (before or {}).items()
        if name in now and _comparable(was, now[name]) and was["content"] != now[name]["content"]
    }


def _comparable(was: Mapping[str, Any] | None, now: Mapping[str, Any]) -> bool:
    """True of what is known, and of datasets by the same columns."""
    return was is not None and was.get("columns") == now.get("columns")


def describe(one: Mapping[str, Any]) -> str:
    """A source in words."""
    facts = [f"{one[name]} {name}" for name in ("episodes", "rows") if name in one]
    facts.append(f"content {one['content'][:DIGITS]}")
    return f"{one['place']} ({', '.join(facts)})"


def is_current(metrics: Mapping[str, Any], checkpoint: Path) -> bool:
    """True unless the `metrics.json` of an evaluation is known to be of another checkpoint.

    By its checksum; results of earlier versions say the number of updates alone.
    """
    if not checkpoint.is_file():
        return True
    meta, checksum = summary(checkpoint)
    if "checkpoint_checksum" in metrics:
        return metrics["checkpoint_checksum"] == checksum
    return metrics["updates"] in (0, meta["step"])  # 0: the random policy
