"""Datasets from and to the reference's files: `NAME.npz` and, for validation, `NAME-val.npz`.

    python -m datasets.convert import FILE.npz NAME [SETTING=VALUE ...]
    python -m datasets.convert export NAME FILE.npz

An import wants the settings of `config.yaml` that say what the file holds, such as
`task=manipobj-v0 env_kwargs.manipobj.num_cubes=3`. Both read and write as streams: one episode is
in memory at a time, however large the files. An import that was stopped continues with the same
command; an export appears when it is whole.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common.foundation.errors import UserError, one_line_errors
from common.foundation.files import atomic_write, check_path
from common.settings.config import compose
from datasets.actions import check_actions, recorded_actions
from datasets.command_line import command_line, make_parser
from datasets.episodes import EpisodeWriter
from datasets.filling import dataset_folder, filling
from datasets.npz import write_npz
from datasets.npz_dataset import NpzDataset, validation_file
from datasets.source import SPLITS, EpisodeSource
from datasets.store import Dataset, episode_path
from envs.base import World
from envs.make import make_world


def import_npz(
    file: str | Path,
    name: str,
    data_dir: str | Path,
    world: World,
    command: str,
    clip_actions: bool = False,
) -> Path:
    """Make the dataset `name` from a file of data of `world`; return its folder.

    Episodes that are there already are kept; `command` continues. Raises UserError if the file is
    damaged or does not fit, its actions are on another scale, or the folder holds something else.
    """
    source = NpzDataset(file, world)
    folder = dataset_folder(data_dir, name)
    check_actions(recorded_actions(source), world.actions, str(source), clip_actions)
    header = {"command": command} | source.header
    if clip_actions:
        files = header["source"]
        header["source"] = {split: files[split] | {"clip_actions": True} for split in files}
    with filling(folder, header) as dataset:
        for split in SPLITS:
            _copy(source, dataset, split, clip_actions)
    return folder


def _copy(source: EpisodeSource, dataset: Dataset, split: str, clip_actions: bool) -> None:
    """Write the episodes that are missing."""
    missing = set(dataset.missing(split))
    if not missing:
        return
    names = list(source.header["columns"])
    columns = {name: source.column(name) for name in names}
    for index, episode in enumerate(source.stream(names, split)):
        if index not in missing:
            continue
        if clip_actions:
            episode["actions"] = episode["actions"].clip(-1, 1)
        try:
            with EpisodeWriter(episode_path(dataset.folder, split, index), columns) as writer:
                for t in range(len(episode["terminals"])):
                    writer.append({name: column[t] for name, column in episode.items()})
        except ValueError as error:
            raise UserError(f"{source}, {split} episode {index}: {error}") from error


def export_npz(dataset: EpisodeSource, file: str | Path) -> list[Path]:
    """Write a dataset as `file`, its validation episodes beside it; return the files made.

    Raises UserError if one of them exists, or the disk refuses.
    """
    targets = {"train": Path(file), "val": validation_file(Path(file))}
    if targets["train"].suffix != ".npz":
        raise UserError(f"{file} must end in .npz")
    for target in targets.values():
        check_path(target.with_name(f".{target.name}.tmp"), "FILE.npz")
        if target.exists():
            raise UserError(f"{target} exists; remove it or choose another name")
    lengths = {split: dataset.lengths(split) for split in SPLITS}
    made = [split for split in SPLITS if len(lengths[split])]
    with ExitStack() as undo:
        # With the training file, all is there. Until then its lock keeps others from both files.
        with atomic_write(targets["train"]) as file:
            if "val" in made:
                with atomic_write(targets["val"]) as other:
                    _write(dataset, "val", int(lengths["val"].sum()), other)
                undo.callback(targets["val"].unlink)
            _write(dataset, "train", int(lengths["train"].sum()), file)
        undo.pop_all()
    return [targets[split] for split in made]


def _write(dataset: EpisodeSource, split: str, rows: int, file: BinaryIO) -> None:
    columns = {}
    for name in dataset.header["columns"]:
        shape, dtype = dataset.column(name)
        columns[name] = ((rows, *shape), dtype)

    def blocks(name: str) -> Iterator[np.ndarray]:
        return (episode[name] for episode in dataset.stream([name], split))

    write_npz(file, columns, blocks)


def main(arguments: list[str]) -> None:
    parser = make_parser("datasets.convert", __doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="import|export")
    importing = actions.add_parser("import", help="a file of the reference becomes a dataset")
    importing.add_argument("file", metavar="FILE.npz")
    importing.add_argument("name", metavar="NAME")
    importing.add_argument("settings", nargs="*", metavar="SETTING=VALUE")
    exporting = actions.add_parser("export", help="a dataset becomes a file of the reference")
    exporting.add_argument("name", metavar="NAME")
    exporting.add_argument("file", metavar="FILE.npz")
    options = parser.parse_args(arguments)
    with one_line_errors():
        if options.action == "import":
            config = compose(options.settings)
            world = make_world(config)
            again = command_line("datasets.convert", arguments)
            target = (options.name, options.data_dir)
            print(import_npz(options.file, *target, world, again, config.clip_actions))
        else:
            dataset = Dataset.open(options.data_dir, options.name)
            print(*export_npz(dataset, options.file), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
