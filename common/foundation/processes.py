"""Number of processes, what they inherit from the one that starts them, and signals to them."""

import contextlib
import os
import pickle
import signal
import sys
from collections.abc import Collection, Iterator
from multiprocessing import resource_tracker
from types import FrameType, ModuleType
from typing import Any


@contextlib.contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that the loop can save and end; a second one interrupts it."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def signals_blocked(
    numbers: Collection[int] = (signal.SIGINT, signal.SIGTERM),
) -> Iterator[None]:
    """Block signals in processes started in the block, from their first moment on.

    Ctrl-C and a scheduler's SIGTERM reach the whole process group, but what becomes of the workers
    is the master's affair. For the master they only wait until the block ends.
    """
    resource_tracker.ensure_running()  # or starting the first process does it, which unblocks them
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


@contextlib.contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    """Set a variable for what is imported or started in the block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def single_threaded() -> contextlib.AbstractContextManager[None]:
    """Give processes started in the block one thread each: they read it before any code runs."""
    return environment_variable("OMP_NUM_THREADS", "1")


@contextlib.contextmanager
def without_script(work: Any) -> Iterator[None]:
    """Let processes started in the block not import the running script, which may load much.

    They do it nevertheless if their `work` is defined in it.
    """
    script = sys.modules["__main__"]
    if b"__main__" not in pickle.dumps(work):
        sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
