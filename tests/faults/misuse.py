"""Values that settings cannot have: each is refused in one line, whatever it is.

Keys and ranges come from the schema itself, values from hypothesis; the same each time.
"""

import copy
import dataclasses
import functools
import json
import math
import subprocess
import sys
import typing
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.foundation.errors import UserError
from common.settings import config
from common.settings.overrides import check_arguments
from envs.make import make_world
from tests.faults.report import ROOT, Tally

LONGEST = 1000  # characters of a line that can still be read
SCRIPTS = ("train.py", "evaluate.py", "collect.py")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["1e999", "nan", "-0", "${seed}", "../x", "a/b", "\x00", "a\nb", "x" * 300]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@functools.cache
def leaves() -> dict[str, dataclasses.Field]:
    """Every setting by its dotted key."""

    def walk(cls: type, path: str) -> dict[str, dataclasses.Field]:
        found = {}
        for part in dataclasses.fields(cls):
            kind, key = typing.get_type_hints(cls)[part.name], f"{path}{part.name}"
            nested = dataclasses.is_dataclass(kind)
            found |= walk(kind, f"{key}.") if nested else {key: part}
        return found

    return walk(config._schema(), "")


@functools.cache
def defaults() -> dict[str, Any]:
    return config.compose(["env_kwargs.manipobj.num_cubes=1"]).raw


def with_value(key: str, value: Any) -> dict[str, Any]:
    """The default settings with one changed."""
    raw = copy.deepcopy(defaults())
    *path, name = key.split(".")
    section = functools.reduce(lambda part, inner: part[inner], path, raw)
    section[name] = value
    return raw


def outcome(action: Callable[[], Any]) -> tuple[str, str]:
    """The end of an action: "done", "told" in one line, or "lost", with the message."""
    try:
        action()
    except UserError as error:
        text = str(error)
        clear = text.isprintable() and 0 < len(text) < LONGEST
        return ("told" if clear else "lost"), text
    except Exception as error:  # exactly what must not happen
        return "lost", f"{type(error).__name__}: {error}"
    return "done", ""


def wrong_values(part: dataclasses.Field) -> list[Any]:
    """Values just outside what a setting allows, and of types that it cannot have."""
    limits = part.metadata
    wrong = [{"a": 1}, [[1]], "\x00"]
    if limits.get("low") is not None:
        wrong += [limits["low"] - 1, -(10**30)]
    if limits.get("above") is not None:
        wrong += [limits["above"], limits["above"] - 1]
    if limits.get("high") is not None:
        wrong += [limits["high"] + 1, 10**30]
    if limits.get("below") is not None:
        wrong += [limits["below"], 10**30]
    if limits.get("choices") is not None:
        wrong += ["no such choice", ""]
    if part.type in (int, float, bool, "int", "float", "bool"):
        wrong += [None, "soon", [], math.nan, math.inf]
    return wrong


def is_text(part: dataclasses.Field) -> bool:
    """True where any text is a value of the right type."""
    return "str" in str(part.type) and not part.metadata.get("choices")


def outside_the_range() -> Tally:
    """Every wrong value of every setting; the message names the setting."""
    tally = Tally("a setting outside of its range, or of another type")
    for key, part in leaves().items():
        for value in wrong_values(part):
            if value == "\x00" and is_text(part):
                continue
            end, text = outcome(functools.partial(config.parse, with_value(key, value)))
            named = key.rpartition(".")[2] in text
            tally.expect(end == "told" and named, f"{key}={value!r}: {end} {text}", "told")
    return tally


def anything(examples: int) -> Tally:
    """Any value for any setting: refused in one line, or read back as the same settings."""
    tally = Tally("any value for any setting")

    def check(key: str, value: Any) -> None:
        read = config.parse(with_value(key, value))
        if config.parse(json.loads(json.dumps(read.raw))) != read:
            raise AssertionError("another configuration after writing and reading it")
        make_world(read)

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(sorted(leaves())), values)
    def each(key: str, value: Any) -> None:
        end, text = outcome(lambda: check(key, value))
        end = "harmless" if end == "done" else end
        tally.add(end, f"{key}={value!r}: {text}")

    each()
    return tally


def any_argument(examples: int) -> Tally:
    """Any text as an argument of a command."""
    tally = Tally("any text as a command's argument")
    known = config.known_keys()
    keys = st.sampled_from(known) | st.text(max_size=10)
    texts = st.builds(lambda k, s, v: k + s + v, keys, st.sampled_from(["=", "", ":", "=["]), keys)

    @settings(max_examples=examples, derandomize=True, database=None, deadline=None)
    @given(texts | st.text(max_size=20))
    def each(text: str) -> None:
        end, message = outcome(lambda: check_arguments([text], known))
        tally.add("harmless" if end == "done" else end, f"{text!r}: {message}")

    each()
    return tally


def on_the_command_line(count: int) -> Tally:
    """Wrong values given to the real commands: exit code 2, one line, no traceback."""
    tally = Tally("a wrong value on the command line of a script")
    wrong = [
        f"{key}={value}"
        for key, part in sorted(leaves().items())
        for value in wrong_values(part)
        if isinstance(value, int | str) and str(value).isprintable() and str(value).strip()
    ]
    for number, override in enumerate(wrong[:: max(1, len(wrong) // count)][:count]):
        command = [sys.executable, SCRIPTS[number % len(SCRIPTS)], override]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        lines = done.stderr.splitlines()
        good = done.returncode == 2 and len(lines) == 1 and lines[0].startswith("error: ")
        tally.expect(good, f"{override}: exit code {done.returncode}, {done.stderr}", "told")
    return tally
