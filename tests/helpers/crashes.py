"""Crashes at a chosen point, to see what they leave behind, and refusals in one line."""

from collections.abc import Callable
from typing import Any

import pytest

from common.foundation.errors import UserError


class Crash(Exception):
    """Stands for the end of the process at that very point."""


def fail_at(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, *, after: bool = False
) -> None:
    """Let the `call`-th call of a function crash, before or after its work."""
    real, calls = getattr(owner, name), 0

    def failing(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call and not after:
            raise Crash
        value = real(*args, **kwargs)
        if calls == call:
            raise Crash
        return value

    monkeypatch.setattr(owner, name, failing)


def refusal(call: Callable, *arguments: Any, **options: Any) -> str:
    """The one line with which a call refuses what it was given."""
    with pytest.raises(UserError) as error:
        call(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)
