"""Two of the same at once: one waits or says so, and neither harms the other."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.foundation.errors import UserError
from common.foundation.files import atomic_write
from datasets.convert import export_npz
from datasets.npz_dataset import NpzDataset
from datasets.store import Dataset
from tests.conftest import TINY
from tests.faults.kills import CUBES, RHYTHM, content, must, run_result
from tests.faults.processes import start, temporaries
from tests.faults.report import Tally
from tests.helpers.datasets import assert_same_data, record
from tests.helpers.point_world import point_world

BUSY = ("is in use by process", "another process is writing")


def _export(data_dir: Path, out: Path, barrier: Any, results: Any) -> None:
    """Export a dataset at the same moment as another process."""
    dataset = Dataset.open(data_dir, "points")
    barrier.wait()
    try:
        export_npz(dataset, out)
    except UserError as error:
        results.put(str(error))
    else:
        results.put("")


def exports(place: Path, times: int) -> Tally:
    """Two exports to one file."""
    tally = Tally("two exports to one file at once")
    dataset = record(place, "points", pixels=True)
    context = multiprocessing.get_context("fork")
    for number in range(times):
        out = place / f"out-{number}.npz"
        barrier, results = context.Barrier(2), context.Queue()
        both = [
            context.Process(target=_export, args=(place, out, barrier, results)) for _ in range(2)
        ]
        for process in both:
            process.start()
        said = [results.get(timeout=120) for _ in both]
        for process in both:
            process.join()
        refused = [text for text in said if text]
        good = len(refused) <= 1 and all(BUSY[1] in text for text in refused)
        good = good and not temporaries(place)
        if good:
            assert_same_data(NpzDataset(out, point_world()), dataset)
        tally.expect(good, f"{said}", "told" if refused else "harmless")
    return tally


def writes(place: Path, times: int) -> Tally:
    """Two writers of one small file: it is always the whole of one of them."""
    tally = Tally("two writers of one file at once")
    path = place / "file"
    for number in range(times):
        barrier = threading.Barrier(2)
        told: list[str] = []

        def write(letter: bytes, barrier: Any = barrier, told: list[str] = told) -> None:
            barrier.wait()
            try:
                with atomic_write(path) as file:
                    file.write(letter * 5000)
                    file.flush()
                    time.sleep(0.002)
                    file.write(letter * 5000)
            except UserError as error:
                told.append(str(error))

        threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        whole = path.read_bytes() in (b"a" * 10000, b"b" * 10000) and not temporaries(place)
        tally.expect(whole, f"time {number}: a mixture", "told" if told else "harmless")
    return tally


def commands(
    fault: str, arguments: list[str], folder: Path, result: Callable[[], Any], expected: Any
) -> Tally:
    """The same command twice at once, then once more, which must end as an undisturbed one."""
    tally = Tally(fault)
    both = [start(arguments) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    codes = sorted(process.returncode for process in both)
    busy = [text for text in outputs if any(word in text for word in BUSY)]
    must(arguments)
    good = codes in ([0, 0], [0, 2]) and len(busy) == codes.count(2)
    good = good and result() == expected and not temporaries(folder)
    tally.expect(good, f"exit codes {codes}: {outputs}", "told" if busy else "harmless")
    return tally


def collections(place: Path) -> Tally:
    """Two collections into one folder."""

    def arguments(folder: Path) -> list[str]:
        mode = "env_kwargs.manipobj.mode=data_collection"
        own = ("dataset_name=tiny", "num_collect_episodes=4", "num_workers=1")
        return ["collect.py", *CUBES, mode, *own, f"data_dir={folder}"]

    must(arguments(place / "alone"))
    both = place / "both"
    fault = "two collect.py of one dataset at once"
    expected = content(place / "alone" / "tiny")
    return commands(fault, arguments(both), both, lambda: content(both / "tiny"), expected)


def trainings(place: Path) -> Tally:
    """Two trainings of one name."""

    def arguments(folder: Path) -> list[str]:
        own = (f"data_dir={place / 'alone'}", f"output_dir={folder}", "run_name=run")
        return ["train.py", *TINY, *RHYTHM, "agent=iql", *own]

    def result(folder: Path) -> dict[str, Any]:
        return run_result(folder / "train" / "run", ("last", "best"), ("train", "eval"))

    must(arguments(place / "one"))
    both = place / "two"
    fault = "two train.py of one run at once"
    return commands(fault, arguments(both), both, lambda: result(both), result(place / "one"))
