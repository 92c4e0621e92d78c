"""One way to tell people something: above any progress bar, and in the folder of what is made.

Not Python's `logging`: whoever sets that up, as Hydra does, may silence what others log.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from common.foundation.errors import UserError, one_line

FILE = "warnings.txt"


@dataclass(frozen=True)
class Line:
    """A line for people.

    Attributes:
        warning: something is not as it should be; a folder keeps it.
        once: a command says it a single time, however often it is so.
    """

    text: str
    warning: bool = False
    once: bool = False


Receiver = Callable[[Line], object]


def tell(text: str) -> None:
    """Show a line."""
    pass_on(Line(one_line(text)))


def warn(text: str, *, once: bool = False) -> None:
    """Show a line that begins with "warning:", and keep it in the folder of what is made."""
    pass_on(Line(one_line(text), warning=True, once=once))


def pass_on(line: Line) -> None:
    """Tell a line that was told in another process."""
    _receiver()(line)


class Terminal:
    """Receiver of a command's lines: shows all and keeps the warnings once there is a folder."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._said: set[Line] = set()
        self._not_kept: list[str] = []

    def __call__(self, line: Line) -> None:
        if line in self._said:
            return
        if line.once:
            self._said.add(line)
        tqdm.write(f"warning: {line.text}" if line.warning else line.text)
        if line.warning:
            self._not_kept.append(line.text)
            self._keep()

    @contextlib.contextmanager
    def keeping(self, folder: Path) -> Iterator[None]:
        """Keep in `folder` what was told so far and is told in the block."""
        before, self._folder = self._folder, folder
        try:
            self._keep()
            yield
        finally:
            self._folder = before

    def _keep(self) -> None:
        if self._folder is None or not self._not_kept:
            return
        path = self._folder / FILE
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.writelines(f"{text}\n" for text in self._not_kept)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        self._not_kept.clear()


_current: ContextVar[Receiver | None] = ContextVar("receiver", default=None)


def _receiver() -> Receiver:
    """The receiver of this context, a terminal unless another was given."""
    receiver = _current.get()
    if receiver is None:
        receiver = Terminal()
        _current.set(receiver)
    return receiver


@contextlib.contextmanager
def lines_to(receiver: Receiver) -> Iterator[None]:
    """Let `receiver` have what is told in the block."""
    token = _current.set(receiver)
    try:
        yield
    finally:
        _current.reset(token)


def keeping_warnings(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keep in `warnings.txt` of `folder` what the command warned of so far and in the block.

    Raises `UserError` where that cannot be written.
    """
    return _receiver().keeping(folder)
