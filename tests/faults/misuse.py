"""Values that settings cannot have: each is refused in one line, whatever it is.

Keys and ranges come from the schema itself, values from hypothesis; the same each time.
"""

import copy
import dataclasses
import functools
import json
import math
import typing
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.settings import config
from common.settings.overrides import check_arguments
from envs.make import make_world
from tests.faults.processes import finish
from tests.faults.report import Tally, ending

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
            end, text = ending(functools.partial(config.parse, with_value(key, value)))
            named = key.rpartition(".")[2] in text
            tally.expect(end == "told" and named, f"{key}={value!r}: {end} {text}", "told")
    return tally


def examples_of(
    fault: str, strategy: st.SearchStrategy, examples: int, check: Callable[[Any], object]
) -> Tally:
    """Many examples, the same each time: checked, or refused in one line."""
    tally = Tally(fault)

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def each(example: Any) -> None:
        end, text = ending(functools.partial(check, example))
        tally.add(end, f"{example!r}: {text}")

    each()
    return tally


def anything(examples: int) -> Tally:
    """Any value for any setting: refused in one line, or read back as the same settings."""

    def check(example: tuple[str, Any]) -> None:
        read = config.parse(with_value(*example))
        if config.parse(json.loads(json.dumps(read.raw))) != read:
            raise AssertionError("another configuration after writing and reading it")
        make_world(read)

    pairs = st.tuples(st.sampled_from(sorted(leaves())), values)
    return examples_of("any value for any setting", pairs, examples, check)


def any_argument(examples: int) -> Tally:
    """Any text as an argument of a command."""
    known = config.known_keys()
    keys = st.sampled_from(known) | st.text(max_size=10)
    pairs = st.tuples(keys, st.sampled_from(["=", "", ":", "=["]), keys).map("".join)
    return examples_of(
        "any text as a command's argument",
        pairs | st.text(max_size=20),
        examples,
        lambda text: check_arguments([text], known),
    )


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
        code, output = finish([SCRIPTS[number % len(SCRIPTS)], override])
        good = code == 2 and len(output.splitlines()) == 1 and output.startswith("error: ")
        tally.expect(good, f"{override}: exit code {code}, {output}", "told")
    return tally


def run_all(examples: int, commands: int) -> list[Tally]:
    return [
        outside_the_range(),
        anything(examples),
        any_argument(examples),
        on_the_command_line(commands),
    ]
