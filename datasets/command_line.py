"""Options that dataset commands (inspect, convert, merge) share, and the world of a header."""

import shlex
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from typing import Any

from common.foundation.errors import UserError
from common.foundation.registry import world_class
from common.settings.config import read_yaml
from common.settings.schema import SettingError, build
from envs.base import World


def make_parser(module: str, description: str) -> ArgumentParser:
    """A parser for `python -m MODULE` with the option `--data-dir`, as in `config.yaml`."""
    parser = ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=RawDescriptionHelpFormatter,
    )
    default = read_yaml()["data_dir"]
    parser.add_argument(
        "--data-dir", default=default, help=f"folder of the datasets (default: {default})"
    )
    return parser


def command_line(module: str, arguments: Sequence[str]) -> str:
    """The command line that a user runs to do the same again."""
    return f"python -m {module} {shlex.join(arguments)}"


def world_of(header: Mapping[str, Any]) -> World:
    """The world that a dataset was recorded in. Raises UserError if this code has none like it."""
    name = header["environment"]
    kind = world_class(name, "environment")
    try:
        settings = build(kind.Settings, header["settings"], f"env_kwargs.{kind.section}")
    except SettingError as error:
        raise UserError(f"the settings are of another version of this code: {error}") from error
    return kind.of_task(
        name,
        settings,
        max_episode_steps=header["max_episode_steps"],
        multiview=header["multiview"],
    )
