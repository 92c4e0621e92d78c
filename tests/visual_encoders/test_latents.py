"""Latents on disk: what they hold, that they survive any end, and are never those of others."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.foundation.errors import UserError
from datasets.convert import export_npz
from datasets.filling import exclusive
from datasets.npz_dataset import NpzDataset
from datasets.store import Dataset, episode_path
from tests.helpers.crashes import Crash, fail_at
from tests.helpers.datasets import record
from tests.helpers.encoder_folders import encode_here, load, vqvae_folder
from tests.helpers.point_world import point_world
from visual_encoders import encode, latents
from visual_encoders.encode import encode_dataset
from visual_encoders.latents import LatentStore

EPISODES, ROWS, VIEWS, SIZE = 5, 6, 2, 16
FEATURES = VIEWS * 4 * (SIZE // 4) ** 2
FILES = ("episodes.npy", "header.json", "latents.npy")


@pytest.fixture(scope="module")
def encoder_path(tmp_path_factory) -> Path:
    return vqvae_folder(tmp_path_factory.mktemp("encoders") / "vqvae", SIZE)


@pytest.fixture(scope="module")
def encoder(encoder_path):
    return load("vqvae", encoder_path)


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    """Episodes with two views of random pixels."""
    return record(tmp_path, "noise", point_world(ROWS), episodes=EPISODES, pixels=True)


def content(store: LatentStore) -> dict[str, bytes]:
    return {name: (store.folder / name).read_bytes() for name in FILES}


# What they hold.


def test_the_file_holds_what_the_encoder_says_of_every_image(dataset, encoder):
    store = encode_here(dataset, encoder, VIEWS)
    images = torch.from_numpy(dataset.load(["observations"])[0]["observations"])
    expected = torch.cat([encoder.encode(row.unsqueeze(0)) for row in images])
    found = store.read(EPISODES)
    assert found.shape == (EPISODES * ROWS, FEATURES) and found.dtype == np.float32
    assert torch.equal(torch.tensor(found), expected)
    assert len(np.unique(found, axis=0)) == len(found)
    assert not found.flags.writeable and isinstance(found.base, np.memmap)  # nothing is copied
    np.testing.assert_array_equal(np.load(store.folder / "latents.npy"), found)
    header = json.loads((store.folder / "header.json").read_text())
    assert header["encoder"] == {"kind": "vqvae", "sha256": encoder.fingerprint}
    assert header["views"] == VIEWS and header["shape"] == [FEATURES]
    assert (header["episodes"], header["rows"]) == (EPISODES, EPISODES * ROWS)
    assert store.folder.parent == dataset.folder.parent
    assert store.folder.name.startswith("noise-vqvae-")


def test_a_file_of_the_reference_gives_the_same_latents_in_one_pass(dataset, encoder, monkeypatch):
    folder = encode_here(dataset, encoder, VIEWS)
    export_npz(dataset, dataset.folder.parent / "copy.npz")
    source = NpzDataset(dataset.folder.parent / "copy.npz", point_world(ROWS))
    first = encode_here(source, encoder, VIEWS, count=2)
    assert first.missing(EPISODES) == [2, 3, 4]
    monkeypatch.setattr(NpzDataset, "read_episode", None)  # would unpack all those before
    store = encode_here(source, encoder, VIEWS)
    assert store.folder.name.startswith("copy-vqvae-")
    assert store.read(EPISODES).tobytes() == folder.read(EPISODES).tobytes()
    other = NpzDataset(source.path, point_world(ROWS, mode="task"))
    assert LatentStore.of(other, encoder, VIEWS).folder == store.folder


def test_one_episode_and_a_few_images_are_in_memory_at_a_time(dataset, encoder, monkeypatch):
    alive, most, largest = weakref.WeakSet(), 0, 0
    read, run = Dataset.read_episode, type(encoder).encode

    class Array(np.ndarray):
        __hash__ = object.__hash__

    def reading(self, *args):
        nonlocal most
        episode = {name: array.view(Array) for name, array in read(self, *args).items()}
        most = max(most, len(alive))
        alive.update(episode.values())
        return episode

    def encoding(self, frames):
        nonlocal largest
        largest = max(largest, frames.shape[0] * frames.shape[1])
        return run(self, frames)

    monkeypatch.setattr(Dataset, "read_episode", reading)
    monkeypatch.setattr(type(encoder), "encode", encoding)
    encode_here(dataset, encoder, VIEWS)
    assert most <= 1 and 0 < largest <= encode.CPU_IMAGES


def test_a_part_can_come_first_and_the_rest_later(dataset, encoder):
    store = encode_here(dataset, encoder, VIEWS, count=2)
    part = store.read(2).copy()
    with pytest.raises(UserError, match="episode 2"):
        store.read(3)
    assert store.missing(2) == [] and store.missing(EPISODES) == [2, 3, 4]
    whole = encode_here(dataset, encoder, VIEWS).read(EPISODES)
    np.testing.assert_array_equal(whole[: 2 * ROWS], part)


# Any end.


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", [1, 2, 5, 10])
def test_a_crash_at_any_write_changes_nothing_in_the_end(
    dataset, encoder, monkeypatch, call, after
):
    """Each episode writes its rows, then its mark."""
    undisturbed = encode_here(dataset, encoder, VIEWS)
    expected = content(undisturbed)
    undisturbed.folder.rename(undisturbed.folder.with_name("undisturbed"))
    with monkeypatch.context() as patch, pytest.raises(Crash):
        fail_at(patch, latents._Rows, "write", call, after=after)
        encode_here(dataset, encoder, VIEWS)
    complete = (call - 1 + after) // 2
    assert len(undisturbed.missing(EPISODES)) == EPISODES - complete
    assert content(encode_here(dataset, encoder, VIEWS)) == expected


@pytest.mark.parametrize("name", ["write_json", "_make_array"])
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_while_the_files_are_made(dataset, encoder, monkeypatch, name, after):
    with monkeypatch.context() as patch, pytest.raises(Crash):
        fail_at(patch, latents, name, 1, after=after)
        encode_here(dataset, encoder, VIEWS)
    store = encode_here(dataset, encoder, VIEWS)
    assert store.missing(EPISODES) == [] and len(store.read(EPISODES)) == EPISODES * ROWS


def test_a_lost_file_takes_the_marks_with_it(dataset, encoder):
    store = encode_here(dataset, encoder, VIEWS)
    expected = content(store)
    (store.folder / "latents.npy").unlink()
    assert store.missing(EPISODES) == list(range(EPISODES))
    assert content(encode_here(dataset, encoder, VIEWS)) == expected


SCRIPT = """
from pathlib import Path
from datasets.store import Dataset
from tests.helpers.encoder_folders import load
from visual_encoders.encode import encode_dataset
dataset = Dataset.open({folder!r}, "noise")
encode_dataset(dataset, load("vqvae", Path({encoder!r})), 2, workers=2, progress=False)
"""


def test_two_processes_that_are_killed_and_one_that_goes_on_make_the_same_bits(
    tmp_path, encoder, encoder_path, capfd
):
    """SIGKILL to all of them, at a moment when some episodes are done."""
    dataset = record(tmp_path, "noise", point_world(40), episodes=8, pixels=True)
    expected = content(encode_here(dataset, encoder, VIEWS))
    store = LatentStore.of(dataset, encoder, VIEWS)
    store.folder.rename(tmp_path / "undisturbed")
    script = SCRIPT.format(folder=str(tmp_path), encoder=str(encoder_path))
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", script], cwd=root, start_new_session=True)
    try:
        while process.poll() is None and len(store.missing(8)) == 8:
            time.sleep(0.01)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    left = len(store.missing(8))
    assert 0 < left < 8, "it was killed too late to say anything"
    encode_dataset(dataset, encoder, VIEWS, workers=1, progress=True)
    assert content(store) == expected
    said = capfd.readouterr()
    assert f"encoding {left * 80} of 640 images of {dataset}" in said.out
    assert "images/s" in said.err and "640/640" in said.err.splitlines()[-1]


# Others.


def test_other_encoders_counts_views_and_data_have_folders_of_their_own(dataset, encoder, tmp_path):
    base = LatentStore.of(dataset, encoder, VIEWS)
    other = load("vqvae", vqvae_folder(tmp_path / "other", SIZE, seed=1))
    again = load("vqvae", vqvae_folder(tmp_path / "again", SIZE, seed=0))
    data = replace(dataset, header=dataset.header | {"seed": 4})
    fewer = load("vqvae", encoder.choice.path)
    fewer.setup = {"particles": 5}
    folders = [
        LatentStore.of(dataset, other, VIEWS).folder,
        LatentStore.of(dataset, encoder, 1).folder,
        LatentStore.of(data, encoder, VIEWS).folder,
        LatentStore.of(dataset, fewer, VIEWS).folder,
    ]
    assert len({base.folder, *folders}) == 5
    same = replace(dataset, header=dataset.header | {"command": "another"})
    assert LatentStore.of(same, again, VIEWS).folder == base.folder  # a copy, made elsewhere


def test_latents_of_images_that_were_replaced_are_refused(dataset, encoder, capsys) -> None:
    """Also those of an earlier version, which takes the images over that it finds first."""
    store = encode_here(dataset, encoder, VIEWS)
    header = json.loads((store.folder / "header.json").read_text())
    older = {key: header[key] for key in header if key not in ("images", "checksum")}
    (store.folder / "header.json").write_text(json.dumps(older))
    store.read(EPISODES)
    assert "images not recorded so far" in capsys.readouterr().out
    assert json.loads((store.folder / "header.json").read_text()) == header
    shutil.copy(*(episode_path(dataset.folder, "train", index) for index in (1, 0)))
    changed = LatentStore.of(dataset, encoder, VIEWS)
    assert changed.folder == store.folder and changed.digest(EPISODES) == store.digest(EPISODES)
    with pytest.raises(UserError, match=r"is of other latents \(images=\w+, not \w+\); move the"):
        changed.read(EPISODES)


def test_latents_under_a_wrong_name_are_refused(dataset, encoder, tmp_path):
    other = load("vqvae", vqvae_folder(tmp_path / "other", SIZE, seed=1))
    store = encode_here(dataset, encoder, VIEWS)
    wrong = LatentStore.of(dataset, other, VIEWS)
    store.folder.rename(wrong.folder)
    with pytest.raises(UserError, match=r"header\.json is of other latents \(encoder\.sha256="):
        wrong.read(EPISODES)


def change_byte(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(-100, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("latents.npy", change_byte, r"latents\.npy is damaged \(episode 4 has another checksum"),
        ("latents.npy", lambda path: os.truncate(path, 500), r"latents\.npy is damaged \("),
        ("latents.npy", lambda path: os.truncate(path, 50), r"latents\.npy is damaged \("),
        ("latents.npy", lambda path: np.save(path, np.zeros(3)), r"it holds \(3,\) float64, not"),
        ("episodes.npy", lambda path: os.truncate(path, 140), r"episodes\.npy is damaged \("),
        ("header.json", lambda path: path.write_text("{"), r"header\.json is not valid JSON"),
        ("header.json", lambda path: path.write_text("[]"), r"header\.json is of other latents"),
    ],
)
def test_damage_is_told_in_one_line(dataset, encoder, name, damage, message):
    store = encode_here(dataset, encoder, VIEWS)
    damage(store.folder / name)
    with pytest.raises(UserError, match=message) as error:
        store.read(EPISODES)
    assert "\n" not in str(error.value) and str(store.folder) in str(error.value)


def test_one_command_at_a_time(dataset, encoder):
    store = LatentStore.of(dataset, encoder, VIEWS)
    with exclusive(store.folder), pytest.raises(UserError, match="another process is writing"):
        encode_dataset(dataset, encoder, VIEWS)


def test_full_disks_are_told(dataset, encoder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(latents.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
        with pytest.raises(UserError, match=r"will take 0\.0 GiB and the disk has 0\.0 GiB free"):
            encode_here(dataset, encoder, VIEWS)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        encode_here(dataset, encoder, VIEWS, count=1)
        patch.setattr(latents.os, "fsync", full)
        with pytest.raises(UserError, match=r"cannot write .*latents\.npy: No space left"):
            encode_here(dataset, encoder, VIEWS)


def test_an_encoder_that_makes_nan_is_refused(dataset, encoder, monkeypatch):
    run = type(encoder).encode
    monkeypatch.setattr(type(encoder), "encode", lambda *args: run(*args) + torch.nan)
    with pytest.raises(UserError, match="makes NaN or infinity"):
        encode_here(dataset, encoder, VIEWS)
    assert LatentStore.of(dataset, encoder, VIEWS).missing(1) == [0]


def test_settings_may_stand_behind_options(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(encode, "run", lambda *call: calls.append(call))
    for arguments in (
        ["a", "--devices", "cpu,mps", "obs=dlp"],
        ["a", "obs=dlp", "--devices=cpu,mps"],
    ):
        encode.main(arguments)
    assert calls == [("a", ["obs=dlp"], ["cpu", "mps"])] * 2
