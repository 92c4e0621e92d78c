"""Two of the same at once: one waits or says so, and neither harms the other."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from common.foundation.files import atomic_write
from datasets.convert import export_npz
from datasets.npz_dataset import NpzDataset
from datasets.store import Dataset
from tests.faults import commands
from tests.faults.processes import start, temporaries
from tests.faults.report import Tally, ending
from tests.helpers.datasets import assert_same_data, record
from tests.helpers.point_world import point_world

BUSY = ("is in use by process", "another process is writing")


def _export(dataset: Dataset, out: Path, barrier: Any, results: Any) -> None:
    """Export a dataset at the same moment as another process."""
    barrier.wait()
    results.put(ending(partial(export_npz, dataset, out)))


def exports(place: Path, times: int) -> Tally:
    """Two exports to one file."""
    tally = Tally("two exports to one file at once")
    dataset = record(place, "points", pixels=True)
    context = multiprocessing.get_context("fork")
    for number in range(times):
        out = place / f"out-{number}.npz"
        barrier, results = context.Barrier(2), context.Queue()
        arguments = dataset, out, barrier, results
        both = [context.Process(target=_export, args=arguments) for _ in range(2)]
        for process in both:
            process.start()
        ends = [results.get(timeout=120) for _ in both]
        for process in both:
            process.join()
        refused = [(end, text) for end, text in ends if end != "harmless"]
        told = [end == "told" and BUSY[1] in text for end, text in refused]
        good = len(refused) <= 1 and all(told) and not temporaries(place)
        if good:
            assert_same_data(NpzDataset(out, point_world()), dataset)
        tally.expect(good, f"{ends}", "told" if refused else "harmless")
    return tally


def writes(place: Path, times: int) -> Tally:
    """Two writers of one small file: it is always the whole of one of them."""
    tally = Tally("two writers of one file at once")
    path = place / "file"

    def write(letter: bytes) -> None:
        with atomic_write(path) as file:
            file.write(letter * 5000)
            file.flush()
            time.sleep(0.002)
            file.write(letter * 5000)

    def meet(barrier: threading.Barrier, letter: bytes) -> str:
        barrier.wait()
        return ending(partial(write, letter))[0]

    with ThreadPoolExecutor(2) as pool:
        for number in range(times):
            ends = set(pool.map(partial(meet, threading.Barrier(2)), (b"a", b"b")))
            whole = path.read_bytes() in (b"a" * 10000, b"b" * 10000) and not temporaries(place)
            good = whole and "lost" not in ends
            tally.expect(
                good, f"time {number}: a mixture", "told" if "told" in ends else "harmless"
            )
    return tally


def twice(
    fault: str,
    arguments: Callable[[Path], list[str]],
    result: Callable[[Path], Any],
    place: Path,
) -> Tally:
    """A command twice at once, then once more, which must end as an undisturbed one."""
    tally, alone, folder = Tally(fault), place / "alone", place / "both"
    commands.must(arguments(alone))
    both = [start(arguments(folder)) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    codes = sorted(process.returncode for process in both)
    busy = [text for text in outputs if any(word in text for word in BUSY)]
    commands.must(arguments(folder))
    good = codes in ([0, 0], [0, 2]) and len(busy) == codes.count(2)
    good = good and result(folder) == result(alone) and not temporaries(folder)
    tally.expect(good, f"exit codes {codes}: {outputs}", "told" if busy else "harmless")
    return tally


def run_all(place: Path, times: int, rooms: int) -> list[Tally]:
    """Everything of this kind; the trainings are on the data of the collections."""
    return [
        writes(place, times),
        exports(place / "exports", rooms),
        twice(
            "two collect.py of one dataset at once",
            lambda folder: commands.collecting(folder, "tiny", 4, *commands.CUBE_STATES),
            lambda folder: commands.content(folder / "tiny"),
            place / "collections",
        ),
        twice(
            "two train.py of one run at once",
            lambda folder: commands.training(place / "collections" / "alone", folder, "agent=iql"),
            lambda folder: commands.run_content(folder / "train" / "run"),
            place / "trainings",
        ),
    ]
