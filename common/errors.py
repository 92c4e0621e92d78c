"""The one exception that stands for a mistake the user can mend, and how a command shows it."""

import contextlib
import os
import sys
from collections.abc import Iterator


class UserError(Exception):
    """Bad input. Its message is one line: what is wrong and what to do about it."""


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with one line on stderr: exit code 2 for a mistake, 130 for Ctrl-C.

    Of the processes that `torchrun` starts on a machine, which make the same mistakes, one says it.
    """
    try:
        yield
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("\nstopped; the same command continues", file=sys.stderr)
        raise SystemExit(130) from None
