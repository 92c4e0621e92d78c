"""Settings of an evaluation: the checkpoint's, but for what its command line gives."""

import copy
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common.foundation.errors import UserError
from common.settings.config import Config, compose, parse

# These describe the machine and the place of the results, so the trained run's do not matter.
LOCAL = ("device", "rep_model_device", "threads", "num_workers", "output_dir")
LOCAL += ("worker_timeout", "worker_retries", "deterministic")
DEFAULT_CHECKPOINT = "last.safetensors"


def find_checkpoint(given: str | None, key: str = "eval_checkpoint") -> Path:
    """The checkpoint file that the setting `key` names: itself, or `last` of a run folder.

    `last` and not `best`: the best of several evaluations flatters the agent.
    Raises `UserError` if there is none.
    """
    if not given:
        raise UserError(f"{key} is not set; give a checkpoint file or a run's folder")
    path = Path(given)
    if path.is_dir():
        path /= DEFAULT_CHECKPOINT
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; train.py writes them into its run folder")
    return path


def given_keys() -> list[str]:
    """The dotted keys that this command's line sets. Only inside a Hydra job."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.overrides_parser import OverridesParser

    overrides = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    return [override.key_or_group for override in overrides]


def merge(
    stored: Mapping[str, Any], command: Mapping[str, Any], given: Iterable[str]
) -> dict[str, Any]:
    """Settings of an evaluation, in the form of `config.yaml`.

    Args:
        stored: of the checkpoint. They hold for everything that is not given.
        command: of this command, defaults included. They hold for the `given` dotted keys, for
            the machine (`LOCAL`), and for settings newer than the checkpoint.
    """
    merged = _overlay(command, stored)
    for key in (*LOCAL, *given):
        *path, name = key.split(".")
        source, target = command, merged
        for part in path:
            source, target = source[part], target[part]
        target[name] = copy.deepcopy(source[name])
    return merged


def stored_settings(raw: Mapping[str, Any]) -> Config:
    """The settings in a `config.json`; those that are newer than it have their defaults."""
    return parse(_overlay(_defaults(), raw))


@functools.cache
def _defaults() -> dict[str, Any]:
    return compose().raw


def _overlay(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries: everything of `top`, and what only `base` has."""
    merged = copy.deepcopy(dict(base))
    for key, value in top.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _overlay(merged[key], value) if nested else copy.deepcopy(value)
    return merged
