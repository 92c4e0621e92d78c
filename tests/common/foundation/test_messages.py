"""Lines that are told arrive: in the terminal, from workers and under Hydra, and in runs."""

import ast
import os
import subprocess
import sys
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from common.foundation.errors import UserError
from common.foundation.jobs import run_jobs
from common.foundation.messages import Line, Terminal, keeping_warnings, lines_to, tell, warn
from common.foundation.progress import Bar
from tests.helpers.shells import REPOSITORY

OWN = ["common/foundation/messages.py", "common/foundation/progress.py"]  # with a right to tqdm
TELLING = ("logging", "tqdm")  # modules by which one could tell past them
SCRIPT = """
import logging, sys
log = logging.getLogger("a library")
from common.foundation.jobs import run_jobs
from common.foundation.messages import warn
from common.settings.launch import hydra_main
from tests.common.foundation.test_messages import Teller

@hydra_main
def main(config):
    warn("from the run")
    run_jobs([Teller()], ["it"], lambda n: None)
    log.warning("from a library")
    off = [name for name, found in logging.root.manager.loggerDict.items()
           if isinstance(found, logging.Logger) and found.disabled]
    print("disabled:", off)

if __name__ == "__main__":
    main()
"""


@dataclass(frozen=True)
class Teller:
    """Warns of each job, once as well."""

    def make(self) -> StringIO:
        return StringIO()

    def run(self, tool, job):
        warn(f"a worker saw {job}")
        warn("a worker has no locks", once=True)
        tell("a worker is fine")
        yield 1


def sources() -> list[Path]:
    rooms = "agents", "benchmarks", "common", "datasets", "envs", "visual_encoders"
    found = [path for room in rooms for path in (REPOSITORY / room).rglob("*.py")]
    return sorted([*found, *REPOSITORY.glob("*.py")])


def tells_past(path: Path) -> bool:
    """True for a file that imports a module of `TELLING`, or calls `warnings.warn`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn":
            return True
    return bool(names & set(TELLING))


def test_no_module_tells_by_what_others_can_silence():
    found = [path.relative_to(REPOSITORY).as_posix() for path in sources() if tells_past(path)]
    assert found == OWN


def test_under_hydra_no_logger_is_off_and_everything_told_arrives(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = ["warning: from the run", "warning: a worker saw it", "warning: a worker has no locks"]
    assert done.stdout.splitlines() == [*told, "a worker is fine", "disabled: []"]
    assert done.stderr.splitlines() == ["from a library"]


@pytest.mark.parametrize("in_process", [True, False])
def test_warnings_of_workers_arrive_in_order_and_are_kept(tmp_path, capsys, in_process):
    warn("before there was a folder")
    with keeping_warnings(tmp_path):
        run_jobs([Teller()], [1, 2], lambda n: None, in_process=in_process)
    warn("after it")
    kept = ["before there was a folder", "a worker saw 1", "a worker has no locks"]
    kept.append("a worker saw 2")
    assert (tmp_path / "warnings.txt").read_text().splitlines() == kept
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert shown == [f"warning: {text}" for text in [*kept, "after it"]]


def test_a_command_says_once_what_its_workers_say_once_each(tmp_path):
    said = []
    with lines_to(said.append):
        run_jobs([Teller()] * 2, range(4), lambda n: None)
    assert said.count(Line("a worker has no locks", warning=True, once=True)) == 4
    shown = StringIO()
    with pytest.MonkeyPatch.context() as patch, lines_to(Terminal()):
        patch.setattr(sys, "stdout", shown)
        run_jobs([Teller()] * 2, range(4), lambda n: None)
    assert shown.getvalue().count("no locks") == 1 and shown.getvalue().count("is fine") == 4


def test_a_line_stays_a_line_and_a_disk_that_refuses_is_named(tmp_path):
    with keeping_warnings(tmp_path):
        warn("one\ntwo")
    assert (tmp_path / "warnings.txt").read_text() == "one\\ntwo\n"
    (tmp_path / "none").touch()
    with (
        pytest.raises(UserError, match=r"cannot write .*none/warnings\.txt: Not a directory"),
        keeping_warnings(tmp_path / "none"),
    ):
        warn("nobody keeps this")


class Screen(StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_a_line_leaves_a_bar_in_a_terminal_whole(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    with Bar(total=2, desc="train") as bar:
        bar.update()
        warn("look here")
        bar.update()
    lines = screen.getvalue().split("\n")
    assert any(line.endswith("warning: look here") for line in lines)
    assert "train: 100%" in lines[-2]


def test_in_a_file_a_bar_is_a_line_each_half_minute_and_the_first_and_the_last(monkeypatch):
    now, file = [1000.0], StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with Bar(total=1000, desc="train", unit=" updates") as outer:
        for _ in range(1000):
            now[0] += 1 / 8
            outer.update()
            outer.set_postfix({"loss": "1"}, refresh=False)
            if outer.n == 500:
                assert len(list(Bar(range(100), "validate", leave=False))) == 100
    shares = [line.partition("[")[0].strip() for line in file.getvalue().splitlines()]
    assert shares == [
        "train:   0% 0/1000",
        "train:  24% 240/1000",
        "train:  48% 480/1000",
        "validate:   0% 0/100",
        "validate: 100% 100/100",
        "train:  72% 720/1000",
        "train:  96% 960/1000",
        "train: 100% 1000/1000",
    ]
    assert "\r" not in file.getvalue() and "\x1b" not in file.getvalue()


def test_a_short_reading_writes_nothing_into_a_file(monkeypatch):
    file = StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    assert list(Bar(range(3), "reading", delay=2)) == [0, 1, 2]
    assert file.getvalue() == ""
