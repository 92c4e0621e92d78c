"""Ends of episodes in files that others recorded, by all columns that tell them.

Of R rows and E episodes; singular, plural, capitals and `traj_` for `episode_` make no difference:

    terminals, terminations, terminated, dones   (R,) 1 in an episode's last row
    timeouts, truncations, truncated             (R,) the same
    is_last, is_terminal                         (R,) the same
    episode_starts, is_first                     (R,) 1 in its first row
    episode_index, episode_id                    (R,) its number
    episode_ends                                 (E,) rows up to the end of each episode, at last R
    episode_lengths                              (E,) rows of each episode, R together

Many files mark time limits apart from true ends, so an episode ends wherever one of them says so.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np

from common.foundation.errors import UserError
from datasets.npz import NpzFile
from datasets.source import EpisodeSource

Rule = Callable[[np.ndarray, int], np.ndarray]  # values and R -> (R,) bool, true in last rows


def episode_lengths(file: NpzFile, rows: int) -> tuple[np.ndarray, list[str]]:
    """Rows of each episode, (E,) int64, and the names of the columns that tell them.

    None of either if there is no such column. Raises UserError, naming the column, for one that
    cannot be read or does not hold what its name says, and for a file that ends within an episode.
    """
    ends, told_by = np.zeros(rows, bool), []
    for name in (*file.columns, *file.left_out):
        rule = _find_rule(name)
        if rule is not None:
            told_by.append(name)
            try:
                ends |= rule(_read(file, name), rows)
            except ValueError as error:
                raise UserError(f"{file.path}: column {name} {error}") from error
    if told_by and not ends[-1]:
        end = int(np.flatnonzero(ends).max(initial=-1)) + 1
        raise UserError(
            f"{file.path} ends within an episode: the last of its {' and '.join(told_by)} is not "
            f"set; set it if row {rows - 1} may end one, or leave out the rows from {end} on"
        )
    return np.diff(np.flatnonzero(ends), prepend=-1), told_by


def columns_of_ends(dataset: EpisodeSource) -> list[str]:
    """Columns that tell the ends of episodes, besides `terminals`, which mark them as stored."""
    return [name for name in dataset.header["columns"] if name != "terminals" and _find_rule(name)]


def check_ends(
    dataset: EpisodeSource, columns: Mapping[str, np.ndarray], lengths: np.ndarray
) -> None:
    """Raise UserError if a column (R,) tells of an end within one of the stored episodes (E,).

    An import that knew `terminals` only has put such episodes together.
    """
    stops = np.cumsum(lengths)
    for name in columns_of_ends(dataset):
        try:
            ends = np.flatnonzero(_find_rule(name)(columns[name], stops[-1])) + 1
        except ValueError as error:
            raise UserError(f"dataset {dataset}: column {name} {error}") from error
        inside = np.setdiff1d(ends, stops)
        if len(inside):
            where = dataset.locate("train", int(np.searchsorted(stops, inside[0])))
            raise UserError(
                f"dataset {dataset}: column {name} tells of an end within an episode, first in "
                f"{where}; import the file again under another name"
            )


def _find_rule(name: str) -> Rule | None:
    """Reading of a column that tells the ends of episodes; None for one of another meaning."""
    last_part = re.split(r"[/.]", name.lower())[-1]
    return next((rule for names, rule in RULES.items() if re.fullmatch(names, last_part)), None)


def _read(file: NpzFile, name: str) -> np.ndarray:
    """The numbers of a column (N,)."""
    if shape := file.column(name).row_shape:
        raise ValueError(f"has rows of shape {shape}, not one number each")
    values = file.read(name)
    if not np.isfinite(values).all():
        raise ValueError(f"has NaN or infinity in row {np.flatnonzero(~np.isfinite(values))[0]}")
    return values


def _last_rows(values: np.ndarray, rows: int) -> np.ndarray:
    _check_count(values, rows)
    odd = np.flatnonzero((values != 0) & (values != 1))
    if len(odd):
        raise ValueError(f"has {values[odd[0]]:g} in row {odd[0]}; marks are 0 or 1")
    return values != 0


def _first_rows(values: np.ndarray, rows: int) -> np.ndarray:
    return np.append(_last_rows(values, rows)[1:], True)


def _numbered(values: np.ndarray, rows: int) -> np.ndarray:
    _check_count(values, rows)
    return np.append(values[1:] != values[:-1], True)


def _table_of_ends(values: np.ndarray, rows: int) -> np.ndarray:
    steps = np.diff(values.astype(np.float64), prepend=0)
    if not len(values) or values[-1] != rows or (steps < 1).any() or (steps % 1).any():
        raise ValueError(f"has not the ends of episodes in {rows} rows, ascending up to {rows}")
    return np.isin(np.arange(1, rows + 1), values)


def _table_of_lengths(values: np.ndarray, rows: int) -> np.ndarray:
    if values.sum() != rows or (values < 1).any() or (values % 1).any():
        raise ValueError(f"has not the lengths of episodes that are {rows} rows together")
    return _table_of_ends(values.cumsum(), rows)


def _check_count(values: np.ndarray, rows: int) -> None:
    if len(values) != rows:
        raise ValueError(f"has {len(values)} numbers for {rows} rows")


EPISODE = "(episode|traj(ectory)?)_"
RULES = {
    r"terminals?|terminat(ed|eds|ions?)|dones?|is_last|is_terminal": _last_rows,
    r"time_?outs?|truncat(ed|eds|ions?)": _last_rows,
    rf"{EPISODE}starts?|is_first": _first_rows,
    rf"{EPISODE}(index|indices|idx|ids?)": _numbered,
    rf"{EPISODE}ends?": _table_of_ends,
    rf"{EPISODE}len(gth)?s?": _table_of_lengths,
}
