"""One dataset from shards that were collected on several machines.

    python -m datasets.merge NAME SHARD1 SHARD2 ...

Shards are datasets in the data folder, or folders elsewhere: the parts of one collection
(`num_shards`), which become what a single one would have made, or datasets of different seeds.
Episodes get new numbers, shard after shard; files are linked where the file system can, else
copied, and never unpacked. The shards stay and may be deleted afterwards. A merge that was stopped
continues with the same command.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.foundation.errors import UserError, one_line_errors
from common.foundation.files import atomic_write
from datasets.command_line import command_line, make_parser
from datasets.filling import dataset_folder, difference, filling
from datasets.shards import in_order
from datasets.source import SPLITS
from datasets.store import Dataset, episode_path

# May differ between shards; `shards` and `source` are compared apart, for episodes held twice.
OWN = {"name", "command", "seed", "episodes", "rows", "versions", "shards", "source"}
# The same for parts of one collection, for which the simulator must not have changed.
OF_PARTS = {"name", "command", "episodes", "rows", "part.shard"}
OF_PARTS |= {"versions.python", "versions.h5py"}


def merge(name: str, shards: Sequence[str], data_dir: str | Path, command: str) -> Path:
    """Make the dataset `name` from complete datasets; return its folder.

    `command` continues a merge that was stopped. Raises UserError if the shards are of different
    environments, settings or columns, if two hold the same episodes, or if the disk refuses.
    """
    datasets = [_open(data_dir, shard) for shard in shards]
    parts = all("part" in dataset.header for dataset in datasets)
    _check_alike(datasets, OF_PARTS if parts else OWN)
    folder = dataset_folder(data_dir, name)
    if parts:
        datasets = [datasets[i] for i in in_order([d.header["part"] for d in datasets])]
        header = _whole(datasets[0].header, command)
    else:
        header = _header(datasets, command)
        _check_distinct(header["shards"])
    with filling(folder, header) as merged:
        for split in SPLITS:
            files = [
                episode_path(shard.folder, split, index)
                for shard in datasets
                for index in shard.episodes(split)
            ]
            for index in merged.missing(split):
                _link(files[index], episode_path(folder, split, index))
    return folder


def _open(data_dir: str | Path, shard: str) -> Dataset:
    """A shard given as a path, or as the name of a dataset."""
    path = Path(shard)
    if len(path.parts) > 1 or path.is_absolute():
        return Dataset.open(path.parent, path.name)
    return Dataset.open(data_dir, shard)


def _check_alike(datasets: list[Dataset], own: set[str]) -> None:
    """Raise `UserError` if headers differ in keys other than `own`."""
    first, *others = datasets
    for other in others:
        if found := difference(first.header, other.header, own):
            key, one, two = found
            raise UserError(
                f"{first} and {other} do not fit together: {key} is {one!s:.100} in the first and "
                f"{two!s:.100} in the second; collect them with the same settings"
            )


def _check_distinct(shards: list[dict[str, Any]]) -> None:
    """Equal seeds, or equal contents of imported files, mean equal episodes."""
    seen: dict[str, str] = {}
    for shard in shards:
        key, reason = f"seed {shard['seed']}", f"both are of seed {shard['seed']}"
        if shard["source"]:
            key = str({split: file["crc32"] for split, file in shard["source"].items()})
            reason = f"both come from {shard['source']['train']['file']}"
        if key in seen:
            raise UserError(
                f"{seen[key]} and {shard['name']} hold the same episodes, {reason}; leave one out, "
                "or collect it again with another seed"
            )
        seen[key] = shard["name"]


def _header(datasets: list[Dataset], command: str) -> dict[str, Any]:
    """The header of the whole: the keys that shards share, and a list of their origins."""
    alike = {key: value for key, value in datasets[0].header.items() if key not in OWN}
    return alike | {
        "command": command,
        "seed": None,
        "episodes": {s: sum(d.header["episodes"][s] for d in datasets) for s in SPLITS},
        "versions": datasets[0].header["versions"],
        "shards": [origin for dataset in datasets for origin in _origins(dataset.header)],
    }


def _whole(part: dict[str, Any], command: str) -> dict[str, Any]:
    """The header of a collection, given that of one of its parts."""
    known_later = ("name", "command", "complete", "rows", "part")
    kept = {key: value for key, value in part.items() if key not in known_later}
    return kept | {"command": command, "episodes": part["part"]["episodes"]}


def _origins(header: dict[str, Any]) -> list[dict[str, Any]]:
    """Origin of a dataset; of a merged one, those of its shards."""
    if "shards" in header:
        return header["shards"]
    keys = ("name", "command", "seed", "episodes", "versions", "source")
    return [{key: header.get(key) for key in keys}]


def _link(source: Path, target: Path) -> None:
    """Put a file into the merged dataset, whole or not at all."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links; a copy shows what else it was
        with open(source, "rb") as content, atomic_write(target) as file:
            shutil.copyfileobj(content, file)


def main(arguments: list[str]) -> None:
    parser = make_parser("datasets.merge", __doc__)
    parser.add_argument("name", metavar="NAME", help="the new dataset")
    parser.add_argument("shards", nargs="+", metavar="SHARD", help="a dataset to take in")
    options = parser.parse_args(arguments)
    with one_line_errors():
        again = command_line("datasets.merge", arguments)
        print(merge(options.name, options.shards, options.data_dir, again))


if __name__ == "__main__":
    main(sys.argv[1:])
