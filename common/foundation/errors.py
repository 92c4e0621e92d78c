"""The one exception that stands for a mistake the user can mend, and the line a command shows."""

import contextlib
import difflib
import errno
import faulthandler
import os
import sys
from collections.abc import Iterable, Iterator


class UserError(Exception):
    """Bad input. Its message is one line: what is wrong and what to do about it.

    Values and reasons that the message quotes come from elsewhere, so line breaks and control
    characters in them are shown as escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


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


def _lacks_memory(error: Exception) -> bool:
    """True if Python, numpy or torch (which says it in words only) got no memory."""
    signs = ("can't allocate memory", "out of memory", "Storage size calculation overflowed")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


def _mistake(error: Exception) -> str | None:
    """One line about an error that the user can mend; None for other errors."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return str(
            UserError(f"the name {error.filename!s:.80}... is too long for a file or folder")
        )
    if _lacks_memory(error):
        text = f"not enough memory ({error!s:.300}); make batches, networks or data smaller"
        return str(UserError(text))
    return None


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with one line on stderr: exit code 2 for a mistake, 130 for Ctrl-C.

    Of the processes that `torchrun` starts on a machine, which make the same mistakes, one says it.
    To ask for more than the memory holds is such a mistake, too, and so is a name too long to be.
    """
    try:
        yield
    except (UserError, MemoryError, RuntimeError, OSError) as error:
        text = _mistake(error)
        if text is None:
            raise
        if _lacks_memory(error) or os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"error: {text}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("\nstopped; the same command continues", file=sys.stderr)
        raise SystemExit(130) from None
