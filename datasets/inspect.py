"""What is in a dataset: header, columns and what its episodes are like.

    python -m datasets.inspect NAME                  print it
    python -m datasets.inspect NAME --verify         read everything, list what is damaged
    python -m datasets.inspect NAME --video EPISODE  draw an episode's stored states

For a file NAME.npz instead of a folder, add the settings of config.yaml that say what it holds,
such as `task=manipobj-v0 env_kwargs.manipobj.num_cubes=3`. Images are read by --verify alone.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.agent_files import make_world
from common.config import compose
from common.errors import UserError, one_line_errors
from common.settings import show
from common.video import save_video, tile
from datasets.figures import column_lines, narrow, summarise
from datasets.npz_dataset import is_npz, open_dataset
from datasets.source import SPLITS, EpisodeSource
from datasets.store import Dataset
from datasets.tools import make_parser, world_of
from envs.base import World


def open_any(
    data_dir: str | Path, name: str, settings: Sequence[str]
) -> tuple[EpisodeSource, World]:
    """A dataset and the world it is of; `settings` say which that is for an npz file."""
    if is_npz(data_dir, name):
        world = make_world(compose(settings))
        dataset = open_dataset(data_dir, name, world)
    else:
        dataset = Dataset.open(data_dir, name)
        world = world_of(dataset.header)
    return dataset, world.adopt(dataset.header)


def report(dataset: EpisodeSource, world: World, split: str) -> Iterator[str]:
    """The lines that tell what is in a dataset; figures are of one split."""
    lengths = {s: dataset.lengths(s) for s in SPLITS}
    counts = [f"{len(n)} {s} episodes, {n.sum()} rows" for s, n in lengths.items()]
    yield f"{dataset}: {'; '.join(counts)}"
    yield from header_lines(dataset.header)
    ranges, figures = summarise(dataset, world, split)
    yield f"columns ({split})"
    yield from column_lines(dataset.header, ranges)
    yield f"episodes ({split})"
    yield from (f"  {name:42}{value:9.4f}" for name, value in figures.items())


def header_lines(header: dict[str, Any], path: str = "") -> Iterator[str]:
    """Keys and values, the nested ones with dotted keys; not the columns, which get a table."""
    for key, value in header.items():
        if isinstance(value, list) and any(isinstance(part, dict) for part in value):
            value = {str(i): part for i, part in enumerate(value)}
        if isinstance(value, dict) and key != "columns":
            yield from header_lines(value, f"{path}{key}.")
        elif not isinstance(value, dict):
            yield f"  {path + key:42}{show(value)}"


def film(dataset: EpisodeSource, world: World, split: str, episode: int, file: Path) -> None:
    """Write a video of an episode's stored states. Nothing is simulated.

    Raises UserError if there is no such episode, or its states cannot be drawn.
    """
    count = len(dataset.lengths(split))
    if not 0 <= episode < count:
        raise UserError(f"{dataset} has {count} {split} episodes, from 0 on; {episode} is not one")
    columns = dataset.read_episode(split, episode, narrow(dataset))
    env = world.make()
    try:
        env.reset(seed=0)
        save_video(file, _frames(env, world, columns))
    finally:
        env.close()


def _frames(env: Any, world: World, columns: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
    for t in range(len(columns["terminals"])):
        row = {name: column[t] for name, column in columns.items()}
        yield tile(world.replay(env, row), f"row {t}")


def _parser() -> ArgumentParser:
    parser = make_parser("datasets.inspect", __doc__)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="for a file NAME.npz")
    parser.add_argument("--split", choices=SPLITS, default="train", help="of figures and videos")
    parser.add_argument("--verify", action="store_true", help="read everything; exit code 1 if bad")
    parser.add_argument("--video", type=int, metavar="EPISODE", help="draw this episode")
    parser.add_argument("--out", type=Path, metavar="FILE", help="of the video; NAME_EPISODE.mp4")
    return parser


def main(arguments: list[str]) -> None:
    options = _parser().parse_args(arguments)
    with one_line_errors():
        dataset, world = open_any(options.data_dir, options.name, options.settings)
        if options.verify:
            problems = list(dataset.problems())
            print(*problems or [f"{dataset}: everything can be read"], sep="\n")
            raise SystemExit(1 if problems else 0)
        if options.video is not None:
            file = options.out or Path(f"{options.name}_{options.video}.mp4")
            film(dataset, world, options.split, options.video, file)
            print(file)
        else:
            print(*report(dataset, world, options.split), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
