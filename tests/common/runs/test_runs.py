"""Run folders: names, settings, locks and records."""

import copy
import hashlib
import json
import subprocess
import sys

import pytest
import torch

from common.foundation.device import describe_device, resolve_device, set_threads
from common.foundation.errors import UserError
from common.foundation.files import write_json
from common.foundation.processes import available_cores
from common.runs import folders as runs
from common.runs.folders import new_eval_folder, open_run, train_name
from common.settings.config import ROOT, compose, identity

HOLD = """
import sys
from common.runs.folders import _locked
lock = _locked(__import__("pathlib").Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def settings(tmp_path, *overrides):
    return compose([f"output_dir={tmp_path}", *overrides])


def start(*arguments) -> None:
    """A run that ends at once."""
    with open_run(*arguments):
        pass


def test_the_same_command_finds_its_folder(tmp_path):
    with open_run(settings(tmp_path, "seed=3")) as first:
        assert first.path == tmp_path / "train" / train_name(settings(tmp_path, "seed=3"))
        assert first.path.name.startswith("sgiql_manipobj-v0_3_")
        assert not first.resumed and first.changes == []
    with open_run(settings(tmp_path, "seed=3")) as second:
        assert second.path == first.path
        assert second.resumed and second.changes == []


def test_another_command_gets_another_folder(tmp_path):
    names = {
        train_name(settings(tmp_path, *overrides))
        for overrides in ([], ["seed=1"], ["sgiql.alpha=1"], ["agent=iql"], ["lr=1e-3"])
    }
    assert len(names) == 5
    more_steps = settings(tmp_path, "steps=77", "num_workers=1")
    assert train_name(more_steps) == train_name(settings(tmp_path))


def test_later_settings_leave_earlier_runs_their_folders(tmp_path):
    """Of a switch that did not exist, off is what the run did, and on is another run."""
    config = settings(tmp_path)
    known = {key: value for key, value in identity(config).items() if key not in runs.LATER}
    name = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:8]
    assert train_name(config) == f"sgiql_manipobj-v0_0_{name}"
    stored = copy.deepcopy(config.raw)
    for key in runs.LATER:
        *section, last = key.split(".")
        del (stored[section[0]] if section else stored)[last]
    for key in sorted(runs.LATER.keys() & identity(config)):
        off, on = ("false", "true") if runs.LATER[key] is False else ("0.0", "0.5")
        named = [f"run_name={key}"]
        (tmp_path / "train" / key).mkdir(parents=True)
        write_json(tmp_path / "train" / key / "config.json", stored | {"run_name": key})
        with pytest.raises(UserError, match=f"with {key}: {off}, not {on};"):
            start(settings(tmp_path, *named, f"{key}={on}"))
        with open_run(settings(tmp_path, *named)) as run:
            assert run.resumed and run.changes == []
        assert train_name(settings(tmp_path, f"{key}={on}")) != train_name(config)


def test_settings_that_do_not_touch_the_result_may_change(tmp_path):
    start(settings(tmp_path, "steps=100"))
    with open_run(settings(tmp_path, "steps=200")) as run:
        assert run.resumed and run.changes == ["steps=200, was 100"]
        assert json.loads((run.path / "config.json").read_text())["steps"] == 200
    with open_run(settings(tmp_path, "steps=200")) as run:
        assert run.changes == []


def test_a_named_folder_refuses_other_settings(tmp_path):
    with open_run(settings(tmp_path, "run_name=mine", "sgiql.alpha=0.1")) as run:
        assert run.path == tmp_path / "train" / "mine"
    stored = (run.path / "config.json").read_bytes()
    with pytest.raises(
        UserError, match=r"mine belongs to a run with sgiql\.alpha: 0\.1, not 0\.3;"
    ):
        start(settings(tmp_path, "run_name=mine", "sgiql.alpha=0.3"))
    with pytest.raises(UserError, match=r"num_cubes: 0, not 2;"):
        start(settings(tmp_path, "run_name=mine", "env_kwargs.manipobj.num_cubes=2"))
    assert (run.path / "config.json").read_bytes() == stored
    start(settings(tmp_path, "run_name=mine", "ecdiffuser.batch_size=9"))


def test_a_setting_the_stored_run_did_not_know_is_named(tmp_path):
    config = settings(tmp_path, "run_name=mine")
    with open_run(config) as run:
        older = {key: value for key, value in config.raw.items() if key != "gamma"}
        (run.path / "config.json").write_text(json.dumps(older))
    with pytest.raises(UserError, match=r"gamma: not set, not 0\.99"):
        start(config)


def test_each_start_leaves_a_record(tmp_path):
    machine = describe_device(torch.device("cpu"))
    start(settings(tmp_path), machine)
    with open_run(settings(tmp_path), machine) as run:
        starts = json.loads((run.path / "provenance.json").read_text())
    assert len(starts) == 2
    assert starts[0]["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert starts[0]["device"] == "cpu" and starts[0]["threads"] >= 1
    assert starts[0]["device_name"]
    assert {"started", "command", "git", "versions", "system"} <= set(starts[0])
    assert set(starts[0]["versions"]) == {"python", *runs.PACKAGES}


def test_one_process_per_folder_and_a_killed_one_lets_go(tmp_path):
    config = settings(tmp_path)
    with (
        open_run(config) as run,
        pytest.raises(UserError, match=r"in use by process \d+; wait for it or stop it"),
    ):
        start(config)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match=f"in use by process {holder.pid};"):
            start(config)
    finally:
        holder.kill()
        holder.communicate()
    start(config)


def test_a_refused_start_releases_the_lock(tmp_path):
    start(settings(tmp_path, "run_name=mine"))
    with pytest.raises(UserError, match="seed: 0, not 1"):
        start(settings(tmp_path, "run_name=mine", "seed=1"))
    start(settings(tmp_path, "run_name=mine"))


def test_an_unusable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot create the folder"):
        start(settings(tmp_path / "file"))


def test_evaluation_folders_are_never_reused(tmp_path):
    config = settings(tmp_path, "eval_variant_name=nofilter", "seed=2")
    folders = {new_eval_folder(config) for _ in range(4)}
    assert len(folders) == 4
    for folder in folders:
        assert folder.parent == tmp_path / "eval"
        assert folder.name.startswith("sgiql_manipobj-v0_2_nofilter_")
        assert json.loads((folder / "config.json").read_text())["seed"] == 2
        assert (folder / "provenance.json").exists()


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="device=cuda:2: this machine has 2 cuda devices; use"):
        resolve_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:0", "mps"):
        with pytest.raises(UserError, match=f"device={name}: this machine has 0 "):
            resolve_device(name)


def test_threads():
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == torch.get_num_threads() == 1
        assert set_threads(0) == torch.get_num_threads() == available_cores()
    finally:
        torch.set_num_threads(before)
