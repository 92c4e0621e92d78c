"""Success of the first command with several seeds and roundings.

python -m benchmarks.quickstart --seeds 0,1,2 --threads 1,2

Runs `commands/quickstart.sh` for each seed and number of threads, one after the other, each with a
folder of results of its own; the data are the same. Two threads are two processes, which compute
the same bits as one. So that their runs are others, Adam is not fused there: it rounds otherwise,
as another machine does, which sends a training another way. Finished runs are not repeated. Further
arguments are overrides of training.
"""

import argparse
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.measure import RESULTS, Row, Table, publish
from common.foundation.errors import UserError, one_line_errors
from common.foundation.files import read_json, write_json
from common.runs.agents import load_agent
from common.runs.curves import read_csv
from common.runs.loading import load_training_data
from common.settings.inherit import find_checkpoint
from common.tools.report import evaluations
from common.tools.values import value_rows

COMMAND = Path(__file__).parent.parent / "commands" / "quickstart.sh"
NAME = "quickstart-cube"
PHASE = re.compile(r"== (?:\d/\d )?(.+) \(\d\d:\d\d:\d\d\) ==$")
LAST = "result"  # the heading after which nothing takes time
DISTANCES = (50, 75)  # steps at which the tables have V's progress


@dataclass(frozen=True)
class Repetition:
    """One run of the command; `folder` holds its results and log."""

    folder: Path
    seed: int
    threads: int
    overrides: tuple[str, ...]

    @property
    def run(self) -> Path:
        return self.folder / "train" / NAME

    @property
    def times(self) -> Path:
        """File of seconds by phase, written at the end: the sign that the run is finished."""
        return self.folder / "phases.json"

    def finish(self) -> None:
        """Run the command, or what is left of it; raises `UserError` if it fails."""
        if self.times.exists():
            return
        begun = self.run.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        seconds = self._command()
        write_json(self.times, {} if begun else seconds)

    def _command(self) -> dict[str, float]:
        """Seconds of each phase by its heading."""
        settings = [f"output_dir={self.folder}", f"seed={self.seed}", f"threads={self.threads}"]
        if self.threads > 1:
            settings.append("fused_adam=false")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        log = self.folder / "log.txt"
        with log.open("a") as file:
            process = subprocess.Popen(
                ["bash", COMMAND, "cube", *settings, *self.overrides],
                env=os.environ | {"VENV": "none", "PATH": path},
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
            with process:
                seconds = _time_phases(process.stdout)
        if process.returncode:
            raise UserError(f"{self.folder}: the quickstart failed; {log} says why")
        return seconds

    def results(self) -> Row:
        """Row of what the run reached."""
        found = {name: metrics["summary"] for name, (_, metrics) in evaluations(self.run).items()}
        training = read_csv(self.run / "train.csv")
        return {
            **self.name,
            "updates": int(training["step"][-1]),
            **{name: _interval(figures["success"]) for name, figures in found.items()},
            **{f"progress of V, {k} steps": x for k, x in _progress(self.run).items()},
            "imitation error": float(training["policy/imitation"][-1]),
        }

    def durations(self) -> Row:
        """Minutes of each phase."""
        seconds = read_json(self.times)
        minutes = {phase: duration / 60 for phase, duration in seconds.items()}
        return self.name | minutes | {"together": sum(minutes.values())}

    @property
    def name(self) -> Row:
        return {"seed": self.seed, "threads": self.threads}

    def success(self, variant: str) -> float:
        """Mean success of an evaluation."""
        return evaluations(self.run)[variant][1]["summary"]["success"]["mean"]


def _time_phases(lines: Iterator[str]) -> dict[str, float]:
    """Seconds between the headings that the command prints."""
    seconds: dict[str, float] = {}
    began, phase = time.monotonic(), None
    for line in lines:
        heading = PHASE.match(line.rstrip())
        if not heading:
            continue
        now = time.monotonic()
        if phase:
            seconds[phase] = now - began
        began, phase = now, heading[1]
        print(line.rstrip(), flush=True)
    return seconds


def _interval(figure: dict[str, float]) -> str:
    return f"{figure['mean']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def _progress(run: Path) -> dict[int, float]:
    """V's progress at `DISTANCES`, see `common.tools.values`."""
    device = torch.device("cpu")
    setup, config, _ = load_agent(find_checkpoint(str(run)), device)
    arguments = config, setup.world, setup.observation, device, setup.normaliser
    buffer, _ = load_training_data(*arguments)
    rows = value_rows(setup.agent, buffer, config.gamma)
    return {row.distance: row.progress for row in rows if row.distance in DISTANCES}


def spread(runs: Sequence[Repetition]) -> list[Row]:
    """Lowest, mean and highest success over the runs, by evaluation."""
    rows: list[Row] = []
    for variant in evaluations(runs[0].run):
        found = [run.success(variant) for run in runs]
        mean = sum(found) / len(found)
        rows.append({"": variant, "lowest": min(found), "mean": mean, "highest": max(found)})
    return rows


def repetitions(options: argparse.Namespace) -> list[Repetition]:
    """The runs that are asked for, in their order."""
    return [
        Repetition(options.runs / f"seed-{s}-threads-{t}", s, t, tuple(options.overrides))
        for s, t in itertools.product(options.seeds, options.threads)
    ]


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runs = Path("output/benchmark-quickstart")
    parser.add_argument("overrides", nargs="*", help="settings of training")
    parser.add_argument("--seeds", type=_numbers, default=[0, 1, 2], help="of the trainings")
    parser.add_argument("--threads", type=_numbers, default=[1, 2], help="of the trainings")
    parser.add_argument("--runs", type=Path, default=runs, help="folder of all results of the runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--device", default="cpu", help="of the trainings")
    return parser.parse_intermixed_args()


def tables(runs: Sequence[Repetition]) -> list[Table]:
    """Tables of what finished runs reached, the range of it, and the time it took."""
    times = [run.durations() for run in runs if read_json(run.times)]
    found = [
        Table("Success and its 95 % interval, by run", [run.results() for run in runs]),
        Table("Success over the runs", spread(runs)),
        Table("Minutes of each phase; runs that were continued are left out", times),
    ]
    return [table for table in found if table.rows]


def main() -> None:
    options = parse()
    runs = repetitions(options)
    for run in runs:
        run.finish()
    publish("quickstart", options, tables(runs))


if __name__ == "__main__":
    with one_line_errors():
        main()
