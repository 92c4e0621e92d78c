"""Names that no file system has are refused in one line, before the work that they are for."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import evaluate
from common.evaluation import evaluate as evaluation_run
from common.foundation.files import NAME_BYTES, check_path, make_folder
from common.paper.plan import Plan
from common.runs import curves
from common.runs.folders import last_checkpoint, make_eval_parent, new_eval_folder
from common.settings.config import compose
from common.settings.names import FOLDERS, PATHS
from common.tools import report
from datasets import convert, inspect, merge
from datasets.filling import dataset_folder
from tests.helpers.crashes import refusal
from tests.helpers.datasets import record
from tests.helpers.encoder_folders import load, vqvae_folder
from tests.helpers.point_world import point_world
from visual_encoders.latents import LatentStore
from visual_encoders.settings import ENCODER_RUNS


def longest(folder: Path, letter: str = "a") -> str:
    return letter * (os.pathconf(folder, "PC_NAME_MAX") // len(letter.encode()))


def test_a_part_of_a_path_counts_in_bytes(tmp_path) -> None:
    for letter in ("a", "ä", "漢"):
        name = longest(tmp_path, letter)
        make_folder(tmp_path / name / "inner")
        line = refusal(check_path, tmp_path / "not" / "there" / (name + letter), "run_name")
        size = len((name + letter).encode())
        assert f" has {size} bytes and at most 255 are possible; shorten run_name" in line
        assert len(line) < 250
    check_path("/")


def test_a_whole_path_leaves_room_for_what_is_inside(tmp_path) -> None:
    deep = tmp_path.joinpath(*["a" * 200] * 20)
    assert "at most 4095 are possible; shorten output_dir" in refusal(
        check_path, deep, "output_dir"
    )


@pytest.mark.parametrize("key", [*FOLDERS, *PATHS])
def test_every_setting_that_names_a_place(key) -> None:
    assert f"300 bytes and at most 255 are possible; shorten {key}" in refusal(
        compose, [f"{key}={'a' * 300}"]
    )


def test_a_project_that_wandb_refuses() -> None:
    for name in ("a" * 129, "a/b"):
        line = refusal(compose, [f"wandb_project={name}", "enable_wandb=true"])
        assert line.startswith("wandb_project=a") and "1 to 128 characters" in line
        compose([f"wandb_project={name}"])


def test_the_longest_name_of_an_evaluation_can_be_made_and_a_longer_one_is_refused(
    tmp_path,
) -> None:
    plain = new_eval_folder(compose([f"output_dir={tmp_path}"])).name
    room = NAME_BYTES - len(plain) - len("_") - len("-999")
    config = compose([f"output_dir={tmp_path}", f"eval_variant_name={'v' * room}"])
    assert new_eval_folder(config) != new_eval_folder(config)
    config = compose([f"output_dir={tmp_path}", f"eval_variant_name={'v' * (room + 1)}"])
    assert "256 bytes and at most 255 are possible; shorten eval_var" in refusal(
        make_eval_parent, config
    )


def test_an_evaluation_with_too_long_a_name_does_not_begin(tmp_path, monkeypatch) -> None:
    config = compose([f"output_dir={tmp_path}", f"eval_variant_name={'v' * 250}"])
    monkeypatch.setattr(evaluate, "find_checkpoint", lambda _: tmp_path)
    monkeypatch.setattr(evaluate, "_load", lambda *_: (None, config, 0))
    monkeypatch.setattr(evaluate, "prepare_evaluation", lambda *_: evaluation_run.evaluate)
    assert "shorten eval_variant_name" in refusal(evaluate.run, config)


def test_the_name_of_a_dataset_becomes_part_of_others(tmp_path) -> None:
    name = "d" * 250
    assert dataset_folder(tmp_path, name)
    assert "shorten dataset_name" in refusal(dataset_folder, tmp_path, f"{name}-part0of2")
    config = compose([f"train_dataset_name={name}", "encoder.kind=vqvae"])
    line = refusal(last_checkpoint, config, ENCODER_RUNS)
    assert "shorten train_dataset_name, or set run_name" in line
    assert last_checkpoint(compose([f"train_dataset_name={name}"])) is None
    data = record(tmp_path, "noise", point_world(6), episodes=1, pixels=True)
    encoder = load("vqvae", vqvae_folder(tmp_path / "vqvae", 16))
    long = replace(data, folder=data.folder.rename(tmp_path / name))
    assert f"shorten the name of dataset {long}" in refusal(LatentStore.of, long, encoder, 2)


@pytest.mark.parametrize(
    ("main", "arguments", "key"),
    [
        (merge.main, ["N", "points", "--data-dir=."], "dataset_name"),
        (convert.main, ["--data-dir=.", "export", "points", "N.npz"], "FILE.npz"),
        (inspect.main, ["points", "--data-dir=.", "--video=0", "--out=N.mp4"], "--out"),
        (report.main, [".", "--to=N.html"], "--to"),
    ],
)
def test_commands_refuse_the_names_of_what_they_would_make(
    main, arguments, key, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    record(tmp_path, "points", episodes=1)
    monkeypatch.setattr(inspect, "open_any", lambda *_: (None, None))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as end:
        main([text.replace("N", "n" * (252 if ".npz" in text else 300)) for text in arguments])
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and line.endswith(f"are possible; shorten {key}")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_path_to_read_that_is_too_long_is_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["curves", "a" * 300])
    with pytest.raises(SystemExit) as end:
        curves.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and line.endswith("aaa... is too long for a file or folder")


def test_the_log_of_a_job_for_hundreds_of_seeds_can_be_made(tmp_path) -> None:
    from common.paper.experiments import read_scales

    scale = replace(read_scales()["paper"], output_dir=str(tmp_path), seeds=range(300))
    job, *_ = Plan("main", scale, ["-m"])._jobs(
        [(("train", "ppp-state/ec-sgiql", ""), seed) for seed in scale.seeds]
    )
    make_folder(job.log.parent)
    job.log.touch()
