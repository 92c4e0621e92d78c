"""Registries: plain dictionaries from a name to `"module:Class"`, imported only when asked for."""

import difflib
import importlib
from collections.abc import Mapping

from common.errors import UserError


def load(target: str) -> type:
    """Import the class that `target` (`"package.module:Class"`) names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def lookup(registry: Mapping[str, str], name: str, what: str) -> type:
    """Return the class registered as `name`; raise `UserError` naming the nearest one otherwise."""
    if name in registry:
        return load(registry[name])
    close = difflib.get_close_matches(name, registry, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UserError(f"{what}={name} is not known; allowed: {', '.join(registry)}{hint}")
