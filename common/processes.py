"""What worker processes inherit from the process that starts them."""

import contextlib
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Block SIGINT and SIGTERM in processes started in the block, from their first moment on.

    Ctrl-C and a scheduler's SIGTERM reach the whole process group, but what becomes of the workers
    is the master's affair. For the master they only wait until the block ends.
    """
    resource_tracker.ensure_running()  # or starting the first process does it, which unblocks them
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
