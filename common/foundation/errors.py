"""The one exception that stands for a mistake the user can mend, and the line a command shows."""

import contextlib
import difflib
import errno
import faulthandler
import io
import os
import sys
from collections.abc import Iterable, Iterator


class UserError(Exception):
    """Bad input. Its message is one line: what is wrong and what to do about it.

    Values and reasons that the message quotes come from elsewhere, so line breaks and control
    characters in them are shown as escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(str(message)))


def one_line(text: str) -> str:
    """The text with line breaks and control characters shown as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def did_you_mean(name: str, known: Iterable[str], path: str = "") -> str:
    """The end of a message that names the one of `known`, all under `path`, most like `name`.

    Empty if none is similar.
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {path}{close[0]}?" if close else ""


def show_crashes() -> None:
    """Say where it happened if the system ends this process for a fault, such as a bus error.

    That comes of a mapped file that became shorter, or whose disk is gone.
    """
    if sys.stderr is not None and not faulthandler.is_enabled():
        faulthandler.enable()


def print_any_character() -> None:
    """Let an output whose encoding lacks a character, such as ASCII, show its escape instead."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def user_error(error: Exception) -> UserError | None:
    """The part of an error that the user can mend, if any: mistakes, long names, lack of memory."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return UserError(f"the name {error.filename!s:.80}... is too long for a file or folder")
    if not _lacks_memory(error):
        return None
    return UserError(f"not enough memory ({error!s:.300}); make batches, networks or data smaller")


def show_error(error: UserError) -> None:
    """Show the line of an error that ends a command, or a job of it."""
    print(f"error: {error}", file=sys.stderr)


def _lacks_memory(error: Exception) -> bool:
    """True if Python, numpy or torch (which says it in words only) got no memory."""
    signs = ("can't allocate memory", "out of memory", "Storage size calculation overflowed")
    said = isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    return said or isinstance(error, MemoryError)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with one line on stderr: exit code 2 for a mistake, 130 for Ctrl-C.

    Of the processes that `torchrun` starts on a machine, which make the same mistakes, one says it.
    To ask for more than the memory holds is such a mistake, too, and so is a name too long to be.
    """
    print_any_character()
    try:
        yield
    except Exception as error:
        mistake = user_error(error)
        if mistake is None:
            raise
        if mistake is not error or os.environ.get("LOCAL_RANK", "0") == "0":
            show_error(mistake)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("\nstopped; the same command continues", file=sys.stderr)
        raise SystemExit(130) from None
