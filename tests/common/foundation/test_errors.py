"""Mistakes are one line, whatever they quote; so is a lack of memory."""

import io
import sys

import numpy as np
import pytest
import torch

from common.foundation.device import set_deterministic
from common.foundation.errors import UserError, one_line_errors


def test_what_a_message_quotes_cannot_break_its_line():
    error = UserError("task=a\nb\x1b[2J\u2028 is not known; ä is")
    assert str(error) == "task=a\\nb\\x1b[2J\\u2028 is not known; ä is"
    assert str(UserError(error)) == str(error)  # Gymnasium raises an error of its workers so


@pytest.mark.parametrize(
    "ask",
    [
        lambda: np.empty(2**55, np.uint8),
        lambda: torch.empty(2**55, dtype=torch.uint8),
        lambda: torch.empty(2**40, 2**40),
    ],
)
def test_too_little_memory_is_one_line(ask, capsys):
    with pytest.raises(SystemExit) as stop, one_line_errors():
        ask()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: not enough memory (") and line.endswith("smaller")


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])  # the latter in the C locale
def test_an_output_in_ascii_shows_escapes(errors, monkeypatch):
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "ascii", errors=errors))
    with one_line_errors():
        print("würfel", "\udcc3", flush=True)
    assert out.getvalue() == rb"w\xfcrfel \udcc3" + b"\n"


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="something else"), one_line_errors():
        raise RuntimeError("something else")


def test_determinism_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    try:
        set_deterministic(True)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        set_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()
