"""The overrides of a command line, checked before Hydra reads them."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.foundation.errors import did_you_mean
from common.settings.schema import SettingError, join


def check_arguments(arguments: Sequence[str], known: list[str]) -> None:
    """Check the overrides of a command line before Hydra sees them, as its messages are long.

    `known` are the dotted keys that may be given. Hydra's own keys (`hydra.*`) and flags pass.
    """
    from hydra._internal.utils import get_args_parser
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parsed, _ = get_args_parser().parse_known_args(arguments)
    parser = OverridesParser.create()
    for text in parsed.overrides:
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            raise SettingError(
                f"cannot read {text}; write key=value, and quote values with special characters"
            ) from error
        if not override.is_hydra_override() and not override.key_or_group.startswith("hydra"):
            _check_override(override, text, known, multirun=parsed.multirun)


def _check_override(override: Any, text: str, known: list[str], multirun: bool) -> None:
    """Check one override: its key, and what Hydra would refuse at length."""
    key = override.key_or_group
    _check_key(key, known)
    if override.is_delete():
        raise SettingError(f"{text} would remove a key that is needed; give it a value instead")
    if override.is_add() and not override.is_force_add():
        raise SettingError(f"{text} adds a key that exists; leave out the +")
    if override.is_sweep_override():
        if not multirun:
            raise SettingError(
                f"{text} gives several values; add -m to run one after the other, "
                "or write a list as key=[1,2]"
            )
        return
    for inner in _inner_keys(override.value(), key):
        _check_key(inner, known)


def _check_key(key: str, known: list[str]) -> None:
    """Refuse an unknown dotted key, naming the nearest one: by spelling, or its full path."""
    if key in known:
        return
    name = key.rpartition(".")[2]
    elsewhere = [other for other in known if other.rpartition(".")[2] == name]
    hint = f"; did you mean {' or '.join(elsewhere)}?" if elsewhere else did_you_mean(key, known)
    raise SettingError(f"unknown key {key}{hint}")


def _inner_keys(value: Any, path: str) -> list[str]:
    """Return the dotted keys of an override with a dictionary as its value."""
    if not isinstance(value, Mapping):
        return []
    keys = [join(path, str(key)) for key in value]
    return keys + [
        inner
        for key, part in zip(keys, value.values(), strict=True)
        for inner in _inner_keys(part, key)
    ]
