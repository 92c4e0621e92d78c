"""Columns of data that others recorded, without a header."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from common.foundation.errors import UserError


def fit(
    name: str, rows: np.ndarray, expected: Mapping[str, tuple[tuple[int, ...], str]], settings: str
) -> dict[str, Any]:
    """Return the header's entry of a column; one that is not `expected` is kept as it is.

    Images may be of any size and number of views, terminals any number that is zero or not.
    Raises `UserError` if it cannot be of a world with these `settings`, as overrides.
    """
    shape, dtype = expected.get(name, (rows.shape[1:], rows.dtype.name))
    found = f"column {name} has rows of shape {rows.shape[1:]} and type {rows.dtype}"
    if name == "observations" and dtype == "uint8":
        if rows.dtype != np.uint8 or rows.ndim not in (4, 5) or rows.shape[-1] != 3:
            raise UserError(f"{found}, images are (height, width, 3) or (views, ...) uint8")
        shape = rows.shape[1:]
    elif rows.shape[1:] != shape or not (
        name == "terminals" or np.can_cast(rows.dtype, dtype, "same_kind")
    ):
        raise UserError(f"{found}, with {settings} it is {shape} and {dtype}")
    return {"shape": list(shape), "dtype": dtype}
