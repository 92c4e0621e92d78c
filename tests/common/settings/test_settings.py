"""Schemas of settings: conversion, and one clear line for each kind of mistake."""

import dataclasses
from dataclasses import dataclass

import pytest

from common.foundation.errors import UserError
from common.settings.schema import SettingError, build, setting


@dataclass(frozen=True)
class Inner:
    rate: float = setting(above=0, below=1)
    name: str | None = setting()


@dataclass(frozen=True)
class Outer:
    batch_size: int = setting(low=1)
    share: float = setting(low=0, high=1)
    agent: str = setting(choices=("iql", "sgiql"))
    silent: bool = setting(identity=False)
    sizes: tuple[int, ...] = setting(low=1)
    label: str
    inner: Inner


GOOD = {
    "batch_size": 4,
    "share": 1,
    "agent": "iql",
    "silent": False,
    "sizes": [2, 3],
    "label": "",
    "inner": {"rate": "1e-3", "name": None},
}


def message(**changes: object) -> str:
    with pytest.raises(SettingError) as error:
        build(Outer, GOOD | changes)
    return str(error.value)


def test_values_arrive_with_their_types():
    built = build(Outer, GOOD)
    assert built == Outer(4, 1.0, "iql", False, (2, 3), "", Inner(0.001, None))
    assert type(built.share) is float
    with pytest.raises(dataclasses.FrozenInstanceError):
        built.share = 0.5


def test_a_setting_has_no_default():
    with pytest.raises(TypeError):
        Inner()


def test_identity_is_recorded_in_the_field():
    flags = {
        field.name: field.metadata.get("identity", True) for field in dataclasses.fields(Outer)
    }
    assert [name for name, flag in flags.items() if not flag] == ["silent"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"batch_size": 0}, "batch_size=0 is too small; allowed: integers of at least 1"),
        ({"share": 1.5}, "share=1.5 is too large; allowed: numbers of at least 0 and at most 1"),
        (
            {"inner": {"rate": 1, "name": None}},
            "inner.rate=1.0 is too large; allowed: numbers above 0 and below 1",
        ),
        (
            {"inner": {"rate": 0, "name": None}},
            "inner.rate=0.0 is too small; allowed: numbers above 0 and below 1",
        ),
        (
            {"agent": "sgql"},
            "agent=sgql is not known; allowed: iql, sgiql; did you mean sgiql?",
        ),
        ({"agent": 3}, "agent=3 is not text; allowed: iql, sgiql"),
        (
            {"batch_size": "many"},
            "batch_size=many is not an integer; allowed: integers of at least 1",
        ),
        ({"batch_size": 2.0}, "batch_size=2.0 is not an integer; allowed: integers of at least 1"),
        (
            {"batch_size": True},
            "batch_size=true is not an integer; allowed: integers of at least 1",
        ),
        (
            {"batch_size": None},
            "batch_size=null is not an integer; allowed: integers of at least 1",
        ),
        ({"silent": 1}, "silent=1 is not true or false; allowed: true, false"),
        ({"label": 3}, "label=3 is not text; allowed: text (numbers in quotes)"),
        ({"sizes": 3}, "sizes=3 is not a list; allowed: lists of integers of at least 1"),
        ({"sizes": [1, "a"]}, "sizes=a is not an integer; allowed: integers of at least 1"),
        (
            {"inner": {"rate": 0.5, "name": 3}},
            "inner.name=3 is not text; allowed: text (numbers in quotes), or null",
        ),
        ({"inner": 3}, "inner=3 is not a section; set its keys as inner.KEY"),
        ({"inner": None}, "inner=null is not a section; set its keys as inner.KEY"),
        ({"batch_sizes": 3}, "unknown key batch_sizes; did you mean batch_size?"),
        ({"qqq": 3}, "unknown key qqq"),
        (
            {"inner": {"rate": 0.5, "name": None, "nam": 1}},
            "unknown key inner.nam; did you mean inner.name?",
        ),
        ({"inner": {"rate": 0.5}}, "key inner.name is missing; give it a value in config.yaml"),
    ],
)
def test_each_mistake_gives_one_line(changes, expected):
    assert message(**changes) == expected


@pytest.mark.parametrize("value", ["nan", float("nan"), float("inf"), True, "a", [1.0]])
def test_only_finite_numbers_are_numbers(value):
    assert "is not a number" in message(share=value)


def test_a_setting_error_is_a_user_error():
    assert issubclass(SettingError, UserError)
