"""A run knows its data: what has changed is told, refused, or allowed, and scales stay."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import train
from common.data.normaliser import Normaliser
from common.evaluation import evaluate as evaluation_run
from common.foundation.files import read_json, write_json
from common.runs import checkpoint
from common.settings.config import Config
from datasets.convert import export_npz
from datasets.store import Dataset, episode_path
from tests.helpers.crashes import refusal
from tests.helpers.training import folder_of, result

SHORT = ("log_freq=2", "eval_freq=100", "checkpoint_freq=2", "save_video=false")
NARROW = {
    "iql": ("agent=iql",),
    "ecdiffuser": (
        "agent=ecdiffuser",
        *(f"ecdiffuser.{name}=null" for name in ("embed_dim", "h_dim", "n_layers", "batch_size")),
        "ecdiffuser.n_head=2",
    ),
}


@pytest.fixture
def own_data(tiny_data, tmp_path) -> Path:
    """A copy of the data folder that a test may change."""
    return Path(shutil.copytree(tiny_data, tmp_path / "own"))


@pytest.fixture
def config(tiny_config, own_data) -> Callable[..., Config]:
    return lambda *more: tiny_config(*SHORT, f"data_dir={own_data}", *more)


def replace_episode(data: Path) -> None:
    """Another content under the same name, number and length."""
    shutil.copy(*(episode_path(data / "tiny", "train", index) for index in (1, 0)))


def enlarge(data: Path) -> None:
    folder, header = data / "tiny", read_json(data / "tiny" / "header.json")
    shutil.copy(*(episode_path(folder, "train", index) for index in (0, 6)))
    header["episodes"]["train"] += 1
    write_json(folder / "header.json", header, sealed=True)


def forget(folder: Path) -> None:
    """Turn a run into one of an earlier version, which did not know its data."""
    tensors, meta = checkpoint.load(folder / "last.safetensors")
    checkpoint.save(folder / "last.safetensors", tensors, meta | {"data": None})
    starts = read_json(folder / "provenance.json")
    write_json(folder / "provenance.json", [s | {"data": None} for s in starts])


def normaliser(folder: Path) -> list[list[float]]:
    tensors, _ = checkpoint.load(folder / "last.safetensors")
    kept = [name for name in tensors if "normaliser/" in name or "scaling/" in name]
    return [tensors[name].tolist() for name in sorted(kept)]


@pytest.mark.parametrize("change", [replace_episode, enlarge])
def test_changed_data_are_refused_with_both_named_also_by_a_finished_run(
    change, config, own_data
) -> None:
    train.run(config("steps=2"))
    folder = folder_of(config())
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    change(own_data)
    for steps in (2, 4):
        line = refusal(lambda n=steps: train.run(config(f"steps={n}")))
        assert line.startswith(f"{folder} learned from other data: dataset {own_data}/tiny (6 epi")
        assert f", now {own_data}/tiny ({6 + (change is enlarge)} episodes, " in line
        assert "allow_changed_data=true" in line
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    train.run(config("steps=2", "run_name=anew"))


@pytest.mark.parametrize("agent", NARROW)
def test_allowed_it_goes_on_with_the_scales_that_it_has(
    agent, config, own_data, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(evaluation_run, "evaluate", lambda *_, **__: result(1))
    own = [*NARROW[agent], "run_name=run"]
    train.run(config("steps=2", *own))
    folder = folder_of(config(*own))
    scales = normaliser(folder)
    (first,) = read_json(folder / "provenance.json")
    replace_episode(own_data)
    capsys.readouterr()
    train.run(config("steps=4", "allow_changed_data=true", *own))
    out = capsys.readouterr().out
    assert f"  changed: dataset {own_data}/tiny (6 episodes, 150 rows, content" in out
    assert normaliser(folder) == scales
    train.run(config("steps=2", *NARROW[agent], "run_name=new"))
    assert normaliser(folder_of(config("run_name=new"))) != scales  # those of the data now
    meta, _ = checkpoint.summary(folder / "last.safetensors")
    _, second = read_json(folder / "provenance.json")
    assert meta["data"] == second["data"] != first["data"]
    train.run(config("steps=5", *own))  # they are its data now


def test_a_run_that_goes_on_fits_no_scales(config, tmp_path, monkeypatch) -> None:
    train.run(config("steps=4", f"output_dir={tmp_path / 'whole'}"))
    train.run(config("steps=2"))

    def fit(*_):
        raise AssertionError("fitted anew")

    monkeypatch.setattr(Normaliser, "fit", fit)
    train.run(config("steps=4"))
    one, other = folder_of(config()), folder_of(config(f"output_dir={tmp_path / 'whole'}"))
    (tensors, _), (others, _) = (checkpoint.load(f / "last.safetensors") for f in (one, other))
    assert [k for k in tensors if not torch.equal(tensors[k], others[k])] == []


def test_a_run_of_an_earlier_version_takes_its_data_over(config, own_data, capsys) -> None:
    train.run(config("steps=2"))
    folder = folder_of(config())
    forget(folder)
    capsys.readouterr()
    train.run(config("steps=2"))
    line = f"  dataset not recorded so far, from now on {own_data}/tiny (6 episodes, 150 rows"
    assert line in capsys.readouterr().out
    train.run(config("steps=2"))
    assert "not recorded" not in capsys.readouterr().out
    replace_episode(own_data)
    assert "learned from other data" in refusal(lambda: train.run(config("steps=4")))


def test_a_file_that_was_replaced_is_noticed(config, own_data) -> None:
    dataset = Dataset.open(own_data, "tiny")
    export_npz(dataset, own_data / "file.npz")
    named = ("train_dataset_name=file", "run_name=file")
    train.run(config("steps=2", *named))
    train.run(config("steps=3", *named))
    for path in own_data.glob("file*.npz"):
        path.unlink()
    replace_episode(own_data)
    export_npz(dataset, own_data / "file.npz")
    line = refusal(lambda: train.run(config("steps=4", *named)))
    assert line.count(f"{own_data}/file.npz (6 episodes, 150 rows, content ") == 2


def test_the_same_data_elsewhere_are_the_same(config, own_data, tmp_path) -> None:
    """A copy in another place, made by another command."""
    named = ("run_name=run", "data_dir=data")
    (tmp_path / "first").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "first")
        shutil.copytree(own_data, "data")
        train.run(config("steps=2", *named))
    (tmp_path / "second").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "second")
        shutil.copytree(own_data, "data")
        header = read_json(Path("data/tiny/header.json"))
        write_json("data/tiny/header.json", header | {"command": "another"}, sealed=True)
        train.run(config("steps=4", *named))
    assert checkpoint.summary(folder_of(config(*named)) / "last.safetensors")[0]["step"] == 4


def test_a_start_that_went_on_is_told_and_not_needed(config, capsys) -> None:
    train.run(config("steps=2", "run_name=first"))
    first = folder_of(config("run_name=first"))
    own = ("run_name=second", "train_from_checkpoint=true", f"checkpoint={first}")
    train.run(config("steps=2", *own))
    train.run(config("steps=4", "run_name=first"))
    capsys.readouterr()
    train.run(config("steps=2", *own))
    out = capsys.readouterr().out
    assert "already finished" in out and f"  changed: start {first}/last.safetensors (con" in out
    shutil.rmtree(first)
    train.run(config("steps=4", *own))
    second = folder_of(config("run_name=second"))
    assert "start" in json.loads((second / "provenance.json").read_text())[0]["data"]
    assert "start" in checkpoint.summary(second / "last.safetensors")[0]["data"]


def test_without_checkpoints_a_run_starts_over_with_what_is_there(config, own_data) -> None:
    train.run(config("steps=2", "save_agent=false"))
    replace_episode(own_data)
    train.run(config("steps=2", "save_agent=false"))
    starts = read_json(folder_of(config()) / "provenance.json")
    assert starts[0]["data"] != starts[1]["data"]


def test_other_settings_are_said_before_other_data(config, own_data) -> None:
    train.run(config("steps=2", "run_name=run"))
    replace_episode(own_data)
    line = refusal(lambda: train.run(config("steps=2", "run_name=run", "lr=0.1")))
    assert "belongs to a run with lr: 0.0003, not 0.1" in line
