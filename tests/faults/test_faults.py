"""A little of every experiment in `tests/faults`; `python -m tests.faults` does all of it."""

import dataclasses
import re
import sys
from pathlib import Path

import pytest

from common.foundation.errors import UserError
from common.tools import doctor
from tests.faults import __main__ as experiments
from tests.faults import disk, kills, matrix, misuse, races, report
from tests.faults.parts import PARTS, SCALES, kill_part

QUICK = dataclasses.replace(SCALES["quick"], troubles=("die",))
EVERY = 17  # one of so many combinations of the matrix is tried


def nothing_lost(*tallies: report.Tally) -> None:
    for tally in tallies:
        assert tally.lost == []
        assert tally.tried == tally.told + tally.harmless > 0


def test_values_of_every_setting():
    keys = sorted(misuse.leaves())
    for number, key in enumerate(keys):
        wrong = misuse.wrong_values(misuse.leaves()[key])
        value = wrong[2:][number % len(wrong[2:])] if len(wrong) > 3 else wrong[0]
        with pytest.raises(UserError, match=key.rpartition(".")[2]):
            misuse.config.parse(misuse.with_value(key, value))
    nothing_lost(misuse.anything(QUICK.examples), misuse.any_argument(QUICK.examples))


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> Path:
    return matrix.make_encoders(tmp_path_factory.mktemp("encoders"))


@pytest.mark.parametrize("combination", matrix.combinations()[::EVERY], ids=str)
def test_combinations_work_or_say_why_not(combination, encoders):
    try:
        matrix.attempt(combination, encoders, act=False)
    except UserError as error:
        assert re.search("not possible|cannot be images", str(error))


@pytest.mark.parametrize("name", ["damage", "hostile", "learning", "workers"])
def test_whole_parts(name, tmp_path):
    nothing_lost(*PARTS[name](QUICK, tmp_path).tallies)


def test_disks_that_refuse(tmp_path):
    nothing_lost(*disk.writing(tmp_path / "files", QUICK.rooms))


def test_two_writers(tmp_path):
    nothing_lost(races.writes(tmp_path, QUICK.writes), races.exports(tmp_path / "e", 2))


def test_the_table_has_what_was_seen(tmp_path):
    tally = report.Tally("a fault")
    tally.add("told")
    tally.expect(True, "")
    tally.expect(False, "the last\nrow")
    part = report.Part("Title", [tally], below="| matrix |", about="scale quick")
    report.save(part, tmp_path / "part.json")
    assert report.load(tmp_path / "part.json") == part
    text = report.document([part])
    assert "| a fault | 3 | 1 | 1 | 1 |" in text and "- lost: a fault: the last row" in text
    assert "3 faults were tried, 1 lost something." in text and "| matrix |" in text


def test_the_doctor_names_what_is_wrong(tmp_path, monkeypatch, capsys):
    from tests.helpers.datasets import record

    monkeypatch.setattr(doctor, "rendering_problem", lambda: None)
    record(tmp_path, "good", episodes=2)
    assert doctor.main([f"data_dir={tmp_path}", "device=cpu"]) is None
    assert re.search(r"good +point-v0, 2 of 2 episodes\n", capsys.readouterr().out)
    for name in ("partial", "damaged"):
        record(tmp_path, name, episodes=2)
    (tmp_path / "partial" / "train" / "000001.h5").unlink()
    header = tmp_path / "damaged" / "header.json"
    header.write_text(header.read_text().replace("point-v0", "point-v1"))
    (tmp_path / "torn.npz").write_bytes(b"PK")
    monkeypatch.setattr(doctor, "rendering_problem", lambda: "no OpenGL")
    with pytest.raises(SystemExit) as stop:
        doctor.main([f"data_dir={tmp_path}", "device=cpu"])
    assert stop.value.code == 1
    out = capsys.readouterr().out
    for line in (
        r"frames +no OpenGL",
        r"partial .*1 of 2 .*continues",
        "damaged .*checksum",
        "torn",
    ):
        assert re.search(f"WRONG {line}", out)
    assert out.endswith("4 of these are wrong\n")


def test_a_wrong_part_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tests.faults", "nothing"])
    with pytest.raises(SystemExit):
        experiments.main()
    assert "no part is called nothing; there are kills" in capsys.readouterr().err


def test_a_stopped_part_goes_on_with_the_next_command(tmp_path, monkeypatch):
    killed = []

    def kill(job, count, place):
        killed.append(job.name)
        if len(killed) == 2:
            raise KeyboardInterrupt
        return report.Tally(job.name, tried=count, harmless=count)

    monkeypatch.setattr(kills, "run", kill)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    jobs = [kills.Job(name, list, dict) for name in ("first", "second", "third")]
    scale = dataclasses.replace(QUICK, jobs=1)
    with pytest.raises(KeyboardInterrupt):
        kill_part("things", lambda place: jobs, scale, tmp_path)
    part = kill_part("things", lambda place: jobs, scale, tmp_path)
    assert sorted(killed) == ["first", "second", "second", "third"]  # those that ended, once
    assert [tally.fault for tally in part.tallies] == ["first", "second", "third"]
    assert "before: commit no checkout" in part.below and not list(tmp_path.rglob("*.json"))
