"""Collection: independence of workers and interruptions, failures, and messages."""

import contextlib
import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.foundation.errors import UserError
from common.foundation.files import read_json
from datasets.collection import EpisodeRecipe
from datasets.shards import Part
from datasets.source import SPLITS, EpisodeId
from datasets.store import Dataset, episode_path
from tests.helpers.datasets import assert_same_data, record, run
from tests.helpers.manipobj_worlds import make_world
from tests.helpers.point_world import COLLECT, IMAGES, NearPointWorld, point_world
from tests.helpers.processes import alive, children, wait_for

ROOT = Path(__file__).resolve().parents[2]
SLOW = {"step_seconds": 0.01}  # an episode of 30 steps takes 0.3 s


def files(folder: Path) -> set[str]:
    return {path.name for split in SPLITS for path in (folder / split).iterdir()}


@contextlib.contextmanager
def background(data_dir: Path, **settings: Any) -> Iterator[subprocess.Popen]:
    """Another process that does `run(data_dir, world=point_world(**settings), workers=2)`."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from tests.helpers.point_world import point_world\n"
        "from tests.helpers.datasets import run\n"
        f"run(Path(sys.argv[1]), world=point_world(**{settings!r}), workers=2)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(data_dir), str(ROOT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_rows_are_the_moments_before_their_actions(tmp_path: Path) -> None:
    dataset = record(tmp_path)
    columns, lengths = dataset.load(["actions", "terminals", "qpos", "state_observations"])
    assert lengths.tolist() == [30] * 10
    np.testing.assert_array_equal(columns["terminals"], np.arange(300) % 30 == 29)
    states = columns["state_observations"].reshape(10, 30, 2)
    np.testing.assert_allclose(columns["qpos"], 2 * columns["state_observations"], rtol=1e-6)
    # The walk adds a tenth of the action, and noise of 0.001.
    actions = columns["actions"].reshape(10, 30, 2)
    np.testing.assert_allclose(np.diff(states, axis=1), actions[:, :-1] / 10, atol=0.006)
    assert len(np.unique(states[:, 0, 0])) == 10  # every episode starts elsewhere


def test_data_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    one = run(tmp_path, "one", pixels=True)
    three = run(tmp_path, "three", pixels=True, workers=3)
    assert_same_data(one, three)
    assert_same_data(one, run(tmp_path, "here", point_world(kind=NearPointWorld), pixels=True))
    assert one.read_episode("val", 0)["observations"].shape == (30, *IMAGES)


def test_data_depend_on_seed_split_and_episode(tmp_path: Path) -> None:
    first = record(tmp_path, "first")
    second = record(tmp_path, "second", seed=4)
    starts = [
        dataset.read_episode(split, index)["qpos"][0, 0]
        for dataset in (first, second)
        for split in SPLITS
        for index in dataset.episodes(split)
    ]
    assert len(set(starts)) == 22


def test_header_describes_the_dataset(tmp_path: Path) -> None:
    header = record(tmp_path, pixels=True).header
    assert header["complete"] is True
    assert header["episodes"] == {"train": 10, "val": 1}
    assert header["rows"] == {"train": 300, "val": 30}
    assert header["environment"] == "point-v0"
    assert header["settings"]["mode"] == "data_collection"
    assert header["max_episode_steps"] == 30
    assert header["collection"]["action_noise"] == 0.1
    assert header["columns"]["observations"] == {"shape": list(IMAGES), "dtype": "uint8"}
    assert header["qpos_layout"] == {"point": [0, 2]}
    assert header["seed"] == 3
    assert header["command"] == "python collect.py dataset_name=points"
    assert {"numpy", "python", "h5py"} <= header["versions"].keys()


def test_finished_collection_says_so_and_changes_nothing(tmp_path: Path, capsys) -> None:
    folder = run(tmp_path).folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    capsys.readouterr()
    run(tmp_path, workers=2, command="python collect.py in another way")
    assert capsys.readouterr().out == f"{folder} is already collected: 11 of 11 episodes\n"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")} == before


def test_only_missing_episodes_are_collected(tmp_path: Path) -> None:
    dataset = record(tmp_path, "whole")
    again = record(tmp_path, "again")
    missing = [episode_path(again.folder, "train", 4), episode_path(again.folder, "val", 0)]
    kept = episode_path(again.folder, "train", 5)
    before = kept.stat().st_mtime_ns
    for path in missing:
        path.unlink()
    leftover = again.folder / "train" / ".000004.h5.123.tmp"
    leftover.write_bytes(b"half an episode")
    assert_same_data(dataset, record(tmp_path, "again"))
    assert kept.stat().st_mtime_ns == before
    assert not leftover.exists()


def test_killed_collection_continues_as_if_undisturbed(tmp_path: Path) -> None:
    folder = tmp_path / "killed" / "points"
    with background(tmp_path / "killed", **SLOW) as process:
        wait_for(lambda: len(list(folder.glob("train/0*.h5"))) >= 3)
        workers = children(process.pid)
        assert len(workers) >= 2
        process.kill()
        wait_for(lambda: not any(map(alive, workers)), seconds=10)  # none outlives its parent
    assert not read_json(folder / "header.json")["complete"]
    with pytest.raises(UserError, match=r"of 11 episodes; .* continues it"):
        Dataset.open(tmp_path / "killed", "points")
    resumed = run(tmp_path / "killed", world=point_world(**SLOW), workers=2)
    undisturbed = run(tmp_path / "undisturbed", world=point_world(**SLOW), workers=2)
    assert_same_data(resumed, undisturbed)
    assert resumed.header["complete"]
    assert not any(name.endswith(".tmp") for name in files(folder))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "points"
    with background(tmp_path, **SLOW) as process:
        wait_for(lambda: len(list(folder.glob("train/0*.h5"))) >= 2)
        workers = children(process.pid)
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert f"stopped by {number.name}: " in output
    assert "`python collect.py dataset_name=points` continues" in output
    assert "Traceback" not in output
    wait_for(lambda: not any(map(alive, workers)))
    assert 2 <= len(files(folder)) < 11
    assert not any(name.endswith(".tmp") for name in files(folder))


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    run(tmp_path, episodes=1)
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("raise", r"failed: ZeroDivisionError: the point left the plane"),
        ("nan", r"failed: ValueError: column \w+: a value is not finite"),
        ("die", r"died with exit code -9 \(killed: often for lack of memory\)"),
    ],
)
def test_failing_worker_is_reported(tmp_path: Path, trouble: str, reason: str) -> None:
    world = point_world(trouble=trouble, trouble_episode=2)
    with pytest.raises(UserError, match=rf"train episode 2 {reason}") as error:
        run(tmp_path, world=world)
    assert "2 of 11 episodes are kept" in str(error.value)
    assert "\n" not in str(error.value)
    kept = {name for name in files(tmp_path / "points") if name.endswith(".h5")}
    assert kept == {"000000.h5", "000001.h5"}


def test_failure_of_one_worker_stops_the_others(tmp_path: Path) -> None:
    world = point_world(trouble="raise", trouble_episode=0, **SLOW)
    with pytest.raises(UserError, match="ZeroDivisionError"):
        run(tmp_path, world=world, workers=2)
    assert files(tmp_path / "points") == set()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 4}, "seed=3, not 4"),
        ({"episodes": 12}, "episodes.train=10, not 12"),
        ({"world": point_world(max_episode_steps=31)}, "max_episode_steps=30, not 31"),
        ({"world": point_world(step_seconds=1.0)}, "settings.step_seconds=0.0, not 1.0"),
        ({"pixels": True}, "pixels=False, not True"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    record(tmp_path)
    with pytest.raises(UserError) as error:
        record(tmp_path, **changes)
    assert f"was made with {message}; choose another name" in str(error.value)


def test_other_simulator_version_matters_only_while_incomplete(tmp_path: Path, monkeypatch) -> None:
    folder = record(tmp_path).folder
    monkeypatch.setattr("envs.base.version", lambda package: "0.0")
    record(tmp_path)
    episode_path(folder, "train", 0).unlink()
    with pytest.raises(UserError, match=r"versions\.numpy=.*, not 0\.0"):
        record(tmp_path)


def test_two_collections_do_not_mix(tmp_path: Path) -> None:
    folder = tmp_path / "points"
    folder.mkdir()
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is writing into"):
            run(tmp_path)
    run(tmp_path, episodes=1)


@pytest.mark.parametrize("name", ["", "..", "a/b", "/tmp/x"])
def test_name_must_be_a_folder_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="plain folder name"):
        run(tmp_path, name)


def test_unwritable_data_dir(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make the folder"):
        run(tmp_path / "file")


def cube_recipe(folder: Path, steps: int = 40) -> EpisodeRecipe:
    """Episodes of two cubes."""
    (folder / "train").mkdir(parents=True)
    world = make_world(mode="data_collection", num_cubes=2, max_episode_steps=steps)
    part = Part({"train": 3, "val": 0})
    return EpisodeRecipe(folder, world, COLLECT, seed=0, pixels=False, part=part)


def test_cube_episode_does_not_depend_on_what_was_recorded_before(tmp_path: Path) -> None:
    fresh, used = cube_recipe(tmp_path / "fresh"), cube_recipe(tmp_path / "used")
    for recipe, episodes in ((fresh, [2]), (used, [0, 1, 2])):
        env = recipe.make()
        for index in episodes:
            assert list(recipe.run(env, EpisodeId("train", index))) == list(range(1, 41))
    contents = [episode_path(r.folder, "train", 2).read_bytes() for r in (fresh, used)]
    assert contents[0] == contents[1]
    assert contents[0] != episode_path(used.folder, "train", 1).read_bytes()


def test_worker_needs_no_torch(tmp_path: Path) -> None:
    """Modules of a worker, `collect.py` among them, do not import torch."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import collect, common.foundation.jobs\n"
        "from pathlib import Path\n"
        "from tests.datasets.test_collection import cube_recipe\n"
        "recipe = cube_recipe(Path(sys.argv[1]) / 'data', steps=5)\n"
        "assert list(recipe.run(recipe.make(), ('train', 0))) == [1, 2, 3, 4, 5]\n"
        "assert 'torch' not in sys.modules"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path), str(ROOT)]
    subprocess.run(arguments, check=True)


def test_script_collects_states_of_the_cube_world(tmp_path: Path) -> None:
    overrides = [
        "task=manipobj-v0",
        "env_kwargs.manipobj.mode=data_collection",
        "env_kwargs.manipobj.num_cubes=3",
        "obs=ec_state_gen",
        "max_episode_steps=20",
        f"data_dir={tmp_path}",
        "dataset_name=cubes",
        "num_collect_episodes=2",
        "num_workers=1",
    ]
    command = [sys.executable, str(ROOT / "collect.py"), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "collected 2 of 2 episodes, 40 steps at" in done.stdout
    columns, lengths = Dataset.open(tmp_path, "cubes").load(["actions", "qpos"])
    assert lengths.tolist() == [20, 20]
    assert columns["qpos"].shape == (40, 35)
    assert np.abs(columns["actions"]).max() <= 1
    header = read_json(tmp_path / "cubes" / "header.json")
    assert "env_kwargs.manipobj.num_cubes=3" in header["command"]
    assert "observations" not in header["columns"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset_name=x"], r"set .* env_kwargs\.manipobj\.mode=data_collection "),
        (
            ["dataset_name=x", "env_kwargs.manipobj.mode=task_stack"],
            r"mode=task_stack collects nothing; set .*mode=data_collection_stack ",
        ),
        (["env_kwargs.manipobj.mode=data_collection"], "set dataset_name=NAME"),
    ],
)
def test_script_says_what_is_missing(tmp_path: Path, overrides: list[str], message: str) -> None:
    from collect import run as script
    from common.settings.config import compose

    known = ["env_kwargs.manipobj.num_cubes=1", f"data_dir={tmp_path}"]
    with pytest.raises(UserError, match=message):
        script(compose([*known, *overrides]))
    assert list(tmp_path.iterdir()) == []
