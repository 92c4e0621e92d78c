"""Typed, frozen settings: a dataclass is the schema, `build` checks a plain mapping against it.

The dataclasses carry types and ranges but no defaults: every default stands in `config.yaml`.
A schema may use int, float, bool, str, `tuple[T, ...]`, `T | None` and other such dataclasses, and
`T | str` for a T that certain words may replace.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.foundation.errors import UserError, did_you_mean


class SettingError(UserError):
    """A setting that is unknown, missing, of the wrong type or out of range."""


def setting(
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[Any] | None = None,
    words: Sequence[str] = (),
    identity: bool = True,
) -> Any:
    """Declare a dataclass field with the values it may take.

    `low` and `high` are inclusive bounds, `above` and `below` exclusive ones; for a tuple they and
    `choices` hold for each element. `words` may stand instead of a number. `identity=False` marks a
    setting that changes neither what a training run computes nor what it records: it takes no part
    in the name of the run's folder.
    """
    limits = {"low": low, "high": high, "above": above, "below": below, "choices": choices}
    return dataclasses.field(metadata={**limits, "words": words, "identity": identity})


def build(cls: type, mapping: Mapping[str, Any], path: str = "") -> Any:
    """Make the dataclass `cls` from `mapping`; `path` is the dotted key of the section.

    Raises `SettingError`, one line that names the key, the value and what is allowed.
    """
    if not isinstance(mapping, Mapping):
        raise SettingError(f"{path}={show(mapping)} is not a section; set its keys as {path}.KEY")
    fields = dataclasses.fields(cls)
    hints = typing.get_type_hints(cls)
    check_keys(mapping, [field.name for field in fields], path)
    values = {}
    for field in fields:
        key = join(path, field.name)
        if field.name not in mapping:
            raise SettingError(f"key {key} is missing; give it a value in config.yaml")
        values[field.name] = _convert(hints[field.name], mapping[field.name], key, field.metadata)
    return cls(**values)


def check_keys(mapping: Iterable[str], known: Iterable[str], path: str = "") -> None:
    """Refuse the first key of `mapping` that is not `known`, naming the nearest one that is."""
    known = list(known)
    for key in mapping:
        if key not in known:
            hint = did_you_mean(str(key), known, join(path, ""))
            raise SettingError(f"unknown key {join(path, str(key))}{hint}")


def join(path: str, key: str) -> str:
    """Return the dotted key of `key` in section `path` (`""` is the top)."""
    return f"{path}.{key}" if path else key


def show(value: Any) -> str:
    """Write a value as it stands in a YAML file or on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(show(element) for element in value) + "]"
    return str(value)


def _convert(kind: Any, value: Any, key: str, limits: Mapping[str, Any]) -> Any:
    """Return `value` as the type `kind`, within `limits`."""
    if dataclasses.is_dataclass(kind):
        return build(kind, value, key)
    if _is_optional(kind):
        optional = {**limits, "optional": True}
        return None if value is None else _convert(_inner(kind), value, key, optional)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise SettingError(f"{key}={show(value)} is not a list; {_allowed(kind, limits)}")
        element = typing.get_args(kind)[0]
        return tuple(_convert(element, part, key, limits) for part in value)
    words = limits.get("words", ())
    if value in words:
        return value
    if words:
        kind = typing.get_args(kind)[0]  # T of `T | str`
    converted = _scalar(kind, value)
    if converted is None:
        raise SettingError(f"{key}={show(value)} is not {_NOUN[kind]}; {_allowed(kind, limits)}")
    _check_limits(kind, converted, key, limits)
    return converted


def _scalar(kind: type, value: Any) -> Any:
    """Return `value` as `kind`, or None where the types do not fit."""
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        return _number(value)
    if kind is int and isinstance(value, bool):
        return None
    return value if isinstance(value, kind) else None


def _number(value: int | float | str) -> float | None:
    """Return a finite float, also from text: YAML 1.1 reads `1e-3` as text."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def check_choice(key: str, value: Any, choices: Sequence[Any], allowed: str = "") -> None:
    """Refuse a `value` that is not one of the `choices`; `allowed` describes them if not a list."""
    if value not in choices:
        allowed = allowed or "allowed: " + ", ".join(show(choice) for choice in choices)
        hint = did_you_mean(str(value), map(str, choices))
        raise SettingError(f"{key}={show(value)} is not known; {allowed}{hint}")


def _check_limits(kind: type, value: Any, key: str, limits: Mapping[str, Any]) -> None:
    """Raise where `value` is not one of the choices or lies outside the range."""
    choices = limits.get("choices")
    if choices is not None:
        check_choice(key, value, choices, _allowed(kind, limits))
    low, high, above, below = (limits.get(name) for name in ("low", "high", "above", "below"))
    if (low is not None and value < low) or (above is not None and value <= above):
        raise SettingError(f"{key}={show(value)} is too small; {_allowed(kind, limits)}")
    if (high is not None and value > high) or (below is not None and value >= below):
        raise SettingError(f"{key}={show(value)} is too large; {_allowed(kind, limits)}")


_NOUN = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
_PLURAL = {int: "integers", float: "numbers", bool: "true, false", str: "text (numbers in quotes)"}
_BOUND = {"low": "of at least", "above": "above", "high": "at most", "below": "below"}


def _allowed(kind: Any, limits: Mapping[str, Any]) -> str:
    """Say in words which values a setting may take."""
    if limits.get("optional"):
        return _allowed(kind, {**limits, "optional": False}) + ", or null"
    if typing.get_origin(kind) is tuple:
        element = _allowed(typing.get_args(kind)[0], limits).removeprefix("allowed: ")
        return f"allowed: lists of {element}"
    if limits.get("choices") is not None:
        return "allowed: " + ", ".join(show(choice) for choice in limits["choices"])
    bounds = [
        f"{word} {limits[name]:g}" if isinstance(limits[name], float) else f"{word} {limits[name]}"
        for name, word in _BOUND.items()
        if limits.get(name) is not None
    ]
    alternatives = "".join(f", or {word}" for word in limits.get("words", ()))
    return "allowed: " + " ".join([_PLURAL[kind], " and ".join(bounds)]).strip() + alternatives


def _is_optional(kind: Any) -> bool:
    origin = typing.get_origin(kind)
    return origin in (types.UnionType, typing.Union) and type(None) in typing.get_args(kind)


def _inner(kind: Any) -> Any:
    """Return T of `T | None`."""
    return next(part for part in typing.get_args(kind) if part is not type(None))


@dataclass(frozen=True)
class CollectSettings:
    """Disturbance of scripted policies that collect data.

    Attributes:
        dataset_type: "noisy" (Gaussian noise on the policy's actions) or "play" (none).
        min_action_norm: distance in metres to which a policy stretches shorter moves.
        p_random_action: probability that a step takes a uniformly random action.
        action_noise: upper end of the per-episode noise scale, in units of the action range.
        action_noise_smoothing: correlation of the noise; only used by plan-based policies.
    """

    dataset_type: str = setting(choices=("noisy", "play"), identity=False)
    min_action_norm: float = setting(low=0.0, identity=False)
    p_random_action: float = setting(low=0.0, high=1.0, identity=False)
    action_noise: float = setting(low=0.0, identity=False)
    action_noise_smoothing: float = setting(low=0.0, identity=False)
