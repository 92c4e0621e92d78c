"""Metrics of a run: a CSV file always, Weights & Biases when asked for."""

import csv
import io
import os
import secrets
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.foundation.errors import UserError
from common.foundation.files import atomic_write, read_json, write_json


class MetricsLog:
    """A CSV file with one row per log point; the first row decides the columns.

    Every row reaches the disk before `write` returns. A caller that writes the row of a step before
    the checkpoint of that step finds neither duplicates nor gaps after a resume.

    Args:
        path: the file; it is created by the first row.
        resume_step: keep the rows up to and including this step and drop what comes after, as well
            as a last line cut short; None drops everything.
        checksum: that the rows which are kept must have; None where it is not known.

    Attributes:
        checksum: CRC-32 of the file's content.

    Raises `UserError` if the file is damaged. One that was taken away starts anew.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        resume_step: int | None,
        checksum: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.columns: list[str] | None = None
        self.checksum = 0
        rows = self._rows_until(resume_step) if resume_step is not None else []
        if rows:
            self.columns = list(rows[0])
            content = "".join(map(_line, [self.columns, *(r.values() for r in rows)])).encode()
            self.checksum = zlib.crc32(content)
        if self.path.exists() and checksum not in (None, self.checksum):
            raise self._damaged(f"its rows up to update {resume_step} have another checksum")
        if rows:
            with atomic_write(self.path) as file:
                file.write(content)
        else:
            self.path.unlink(missing_ok=True)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append a row. Raises `ValueError` if its columns differ from those of the first row."""
        row = {"step": step} | {k: v if type(v) is int else float(v) for k, v in values.items()}
        lines = []
        if self.columns is None:
            self.columns = list(row)
            lines.append(_line(self.columns))
        if set(row) != set(self.columns):
            differing = ", ".join(sorted(set(row) ^ set(self.columns)))
            raise ValueError(
                f"{self.path}: columns differ from those of the first row: {differing}"
            )
        lines.append(_line(row[name] for name in self.columns))
        content = "".join(lines).encode()
        try:
            with open(self.path, "ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error
        self.checksum = zlib.crc32(content, self.checksum)

    def _rows_until(self, step: int) -> list[dict[str, str]]:
        """The complete rows up to `step`, as text."""
        if not self.path.exists():
            return []
        try:
            text = self.path.read_bytes().decode()
            complete = text[: text.rfind("\n") + 1]
            rows = csv.DictReader(io.StringIO(complete, newline=""))
            return [row for row in rows if int(row["step"]) <= step]
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise self._damaged(f"{type(error).__name__}: {error}") from error

    def _damaged(self, reason: str) -> UserError:
        return UserError(
            f"{self.path} is damaged ({reason}); move it away, and the run goes on without the "
            "rows it had"
        )


class Tracker:
    """Sends metrics to Weights & Biases if `enable_wandb`, else does nothing.

    A resumed run continues its page: the id is kept in `wandb.json` in the run's folder.
    Raises `UserError` if the package wandb is missing.
    """

    def __init__(self, config: Any, folder: Path, settings: Mapping[str, Any]) -> None:
        self._page = _wandb_page(config, folder, settings) if config.enable_wandb else None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the metrics of one step."""
        if self._page is not None:
            self._page.log({**values, "step": step}, step=step)

    def close(self) -> None:
        """Send what is left and end the run."""
        if self._page is not None:
            self._page.finish()


def _wandb_page(config: Any, folder: Path, settings: Mapping[str, Any]) -> Any:
    """Open the page of the run in this folder."""
    try:
        import wandb
    except ImportError as error:
        raise UserError("enable_wandb=true needs wandb: pip install wandb") from error
    id_file = folder / "wandb.json"
    if not id_file.exists():
        write_json(id_file, {"id": secrets.token_hex(4)})
    page = wandb.init(
        name=folder.name + config.wandb_name_suffix,
        dir=folder,
        id=read_json(id_file)["id"],
        resume="allow",
        project=config.wandb_project,
        entity=config.wandb_entity,
        settings=wandb.Settings(silent=config.wandb_silent),
    )
    page.config.update(dict(settings), allow_val_change=True)
    page.define_metric("*", step_metric="step")
    return page


def _line(cells: Any) -> str:
    """One line of CSV; numbers as Python writes them, which is exact."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
