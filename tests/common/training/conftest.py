"""Evaluations of training runs take no time here."""

from tests.helpers.training import evaluations  # noqa: F401  a fixture that all tests use
