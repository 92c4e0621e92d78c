"""Every benchmark runs, at a tiny size, and its file says what was promised. Nothing is timed."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import collect, encode, evaluate, render, sample, tables, train
from benchmarks.measure import Table, compare, ratios, read
from common.foundation.errors import UserError
from envs.rendering import rendering_problem

COMMON = {"benchmark", "date", "machine", "configuration", "tables"}
MACHINE = {"cpu", "cores", "threads", "load", "versions", "device", "memory_free_gib"}


def run(module, folder: Path, monkeypatch, *options: str) -> dict:
    """Its command's main function; returns the content of the file that it wrote."""
    fixed = ["--out", str(folder), "--device", "cpu", "--threads", "1", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["benchmark", *fixed, *options])
    threads = torch.get_num_threads()
    module.main()
    torch.set_num_threads(threads)
    (path,) = folder.glob("*.json")
    content = json.loads(path.read_text())
    assert content.keys() == COMMON and content["machine"].keys() >= MACHINE
    assert content["machine"]["threads"] == 1 and content["configuration"]["repeats"] == 1
    for table in content["tables"]:
        assert table["rows"] and all(row.keys() == table["rows"][0].keys() for row in table["rows"])
    return content


def test_train(tmp_path: Path, monkeypatch) -> None:
    subjects = ["--subjects", "preset", "iql-flat", "--warmup", "1", "--tiny"]
    variants = ["plain", "eager", "side-by-side", "autocast"]
    content = run(train, tmp_path, monkeypatch, *subjects, "--variants", *variants)
    speed, split = (table["rows"] for table in content["tables"])
    assert [row["variant"] for row in speed] == variants * 2
    assert all(row["updates/s"] > 0 and row["speed-up"] > 0 for row in speed)
    assert split[0]["subgoal policy"] > 0 and split[1]["subgoal policy"] is None


def test_variants_of_a_gpu_are_refused_without_one(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match="--variants graphs needs a CUDA device"):
        run(train, tmp_path, monkeypatch, "--variants", "eager", "graphs")


def test_sample(tmp_path: Path, monkeypatch) -> None:
    small = ["--rows", "200", "--lengths", "20", "--batch", "8"]
    (table,) = run(sample, tmp_path, monkeypatch, *small)["tables"]
    assert [row["rows of"] for row in table["rows"]] == ["state", "DLP 2 x 20"]


def test_evaluate(tmp_path: Path, monkeypatch) -> None:
    size = ["--envs", "2", "--workers", "1", "--steps", "2", "--candidates", "3", "--tiny"]
    (table,) = run(evaluate, tmp_path, monkeypatch, *size)["tables"]
    assert [row["workers"] for row in table["rows"]] == ["plain loop", 1] * 2
    assert table["rows"][1]["diffusion, ms"] == 0 < table["rows"][3]["diffusion, ms"]


def test_collect(tmp_path: Path, monkeypatch) -> None:
    size = ["--workers", "1", "--episodes", "1", "--steps", "3", "--sizes", "1"]
    worlds = ["--worlds", "Push-Tetris, 3 pieces", "--kinds", "state"]
    speed, memory = run(collect, tmp_path, monkeypatch, *size, *worlds)["tables"]
    assert len(speed["rows"]) == 1 and memory["rows"][0]["MiB"] > 1


def test_encode(tmp_path: Path, monkeypatch) -> None:
    size = ["--batches", "1", "2", "--sizes", "1", "--steps", "2"]
    batches, conversion = run(encode, tmp_path, monkeypatch, *size)["tables"]
    assert [row["at once"] for row in batches["rows"]] == [1, 2]
    assert conversion["rows"][0]["images"] == 2 and conversion["rows"][0]["MiB at most"] > 1


def test_render(tmp_path: Path, monkeypatch) -> None:
    if problem := rendering_problem():
        pytest.skip(problem)
    size = ["--worlds", "PPP-Cube, 3 cubes", "--steps", "0"]
    (table,) = run(render, tmp_path, monkeypatch, *size)["tables"]
    full, fast = table["rows"]
    assert full["mean difference"] == 0
    assert 0 < fast["mean difference"] < 3 and 0 < fast["pixels that differ visibly"] < 0.1


def test_tables_are_filled_in_and_text_is_kept(tmp_path: Path, monkeypatch) -> None:
    run(sample, tmp_path, monkeypatch, "--rows", "200", "--lengths", "20", "--batch", "8")
    before = "Head\n<!-- sample -->\nold\n<!-- end -->\nText\n<!-- render -->\n<!-- end -->\n"
    text = tables.fill(before, tmp_path)
    assert "old" not in text and "Head\n" in text and "\nText\n" in text
    assert "| state | 200 | 20 |" in text and "torch" in text and "*Not measured yet.*" in text
    assert tables.fill(text, tmp_path) == text
    (tmp_path / "render.json").write_text("[]")
    with pytest.raises(UserError, match="is no result of a benchmark"):
        read(tmp_path / "render.json")


def test_the_document_has_a_place_for_every_benchmark() -> None:
    marks = tables.MARKED.findall(tables.DOCUMENT.read_text())
    names = {"train", "sample", "evaluate", "collect", "render", "encode"}
    assert names <= set(marks) and len(marks) == len(set(marks))


def test_medians_leave_out_the_first_rounds_and_variants_take_turns() -> None:
    calls = []
    timings = compare({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, 1)
    assert calls == ["a", "b"] * 3 and ratios(timings, "a")["a"] == 1


def test_numbers_have_three_digits_and_gaps_are_empty() -> None:
    rows = [{"x": 1234.5, "y": 0.012345, "z": None, "n": 7}]
    assert Table("", rows).lines()[-1] == "| 1234 | 0.0123 |  | 7 |"
