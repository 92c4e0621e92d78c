"""Training encoders: the same images and bits after any stop, in one process or two."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from PIL import Image

from common.runs import checkpoint
from common.runs.folders import run_path, train_name
from common.runs.metrics import MetricsLog, Tracker
from common.settings.config import compose
from datasets.store import Dataset, episode_path
from tests.helpers.crashes import Crash, fail_at, refusal
from tests.helpers.point_world import PointWorld
from tests.helpers.training import free_port, logged, start
from visual_encoders import train, training
from visual_encoders.base import psnr
from visual_encoders.dlp import published
from visual_encoders.dlp.training import DLPTraining
from visual_encoders.settings import ENCODER_RUNS
from visual_encoders.vqvae.published import load
from visual_encoders.vqvae.training import VQVAETraining

# Rows after 3, 6, ... updates; validations after 4, 8 and 12; checkpoints also after 5 and 10.
SETTINGS = (
    "device=cpu",
    "threads=1",
    "train_dataset_name=noise",
    "encoder.kind=vqvae",
    "encoder.image_size=16",
    "encoder.batch_size=8",
    "encoder.updates_per_epoch=4",
    "encoder.log_freq=3",
    "encoder.checkpoint_freq=5",
    "encoder.read_workers=0",
    "encoder.num_pictures=2",
    "encoder.vqvae.epochs=3",
    "encoder.vqvae.lpips=null",
    "encoder.vqvae.embed_dim=4",
    "encoder.vqvae.n_embed=8",
    "encoder.vqvae.z_channels=32",
    "encoder.vqvae.base_ch=32",
    "encoder.vqvae.ch_mult=[1,1]",
    "encoder.vqvae.num_res_blocks=1",
    "encoder.vqvae.attn_resolutions=[8]",
    "encoder.vqvae.dropout=0.1",
)


DLP = (
    "encoder.kind=dlp",
    "encoder.image_size=64",
    "encoder.batch_size=2",
    "encoder.updates_per_epoch=2",
    "encoder.log_freq=2",
    "encoder.num_pictures=1",
    "encoder.dlp.epochs=3",
    "encoder.dlp.n_kp_enc=4",
    "encoder.dlp.prior_channels=[4,8,12]",
    "encoder.dlp.enc_channels=[4,8,12]",
)


class Drawn:
    """`count` images (n, S, S, 3), drawn from their numbers (n,)."""

    origin, split = MappingProxyType({}), "train"

    def source(self) -> dict[str, str]:
        return {"place": "drawn", "content": "0"}

    def __init__(self, count: int, read: Callable[[np.ndarray], np.ndarray]) -> None:
        self.count, self.read = count, read

    def __len__(self) -> int:
        return self.count


def noise(indices: np.ndarray) -> np.ndarray:
    """Random pixels, 64 x 64."""
    shape = 64, 64, 3
    drawn = [np.random.default_rng(i).integers(0, 256, shape, np.uint8) for i in indices]
    return np.array(drawn, np.uint8).reshape(-1, *shape)


def squares(indices: np.ndarray) -> np.ndarray:
    """A bright square at one of 64 places, which is easy to learn, 16 x 16."""
    y, x = np.mgrid[:16, :16]
    row, column = (2 * part[:, None, None] for part in np.divmod(indices, 8))
    inside = (np.abs(y - row) < 5) & (np.abs(x - column) < 5)
    return np.repeat(np.where(inside, 240, 20).astype(np.uint8)[..., None], 3, -1)


@pytest.fixture(scope="module")
def reference(noise_data, tmp_path_factory) -> Path:
    """The folder of a run that nothing interrupts."""
    output = tmp_path_factory.mktemp("reference")
    config = compose([*SETTINGS, f"data_dir={noise_data}", f"output_dir={output}"])
    train.run(config)
    return run_path(config, ENCODER_RUNS)


@pytest.fixture
def overrides(noise_data, tmp_path) -> list[str]:
    return [*SETTINGS, f"data_dir={noise_data}", f"output_dir={tmp_path}"]


def folder_of(config) -> Path:
    return run_path(config, ENCODER_RUNS)


def rows(folder: Path, name: str) -> list[dict[str, float]]:
    return [{k: float(v) for k, v in row.items()} for row in logged(folder, name)]


def assert_same_run(one: Path, other: Path, load=load) -> None:
    """Same metrics and pictures, byte for byte, and same tensors: weights, moments, sums."""
    pictures = [f"pictures/{path.name}" for path in (other / "pictures").iterdir()]
    for name in ["train.csv", "valid.csv", "hparams.json", *pictures]:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    (tensors, meta), (tensors2, meta2) = (
        checkpoint.load(folder / "last.safetensors") for folder in (one, other)
    )
    assert meta == meta2 and tensors.keys() == tensors2.keys()
    assert [key for key in tensors if not torch.equal(tensors[key], tensors2[key])] == []
    best, best2 = (load(folder).state_dict() for folder in (one, other))
    assert all(torch.equal(best[key], best2[key]) for key in best)


# --- what a run leaves ----------------------------------------------------------------------------


def test_the_records_of_a_run(reference):
    assert [row["step"] for row in rows(reference, "train")] == [3, 6, 9, 12]
    assert [row["step"] for row in rows(reference, "timing")] == [3, 6, 9, 12]
    validations = rows(reference, "valid")
    assert [(row["step"], row["epoch"]) for row in validations] == [(4, 1), (8, 2), (12, 3)]
    assert {"loss", "l1", "codebook", "psnr", "codes_used", "perplexity"} < validations[0].keys()
    pictures = sorted((reference / "pictures").iterdir())
    assert [path.name for path in pictures] == [f"epoch_000{i}.png" for i in (1, 2, 3)]
    assert Image.open(pictures[0]).size == (2 * 16, 2 * 16)  # two images, above reconstructions


def test_the_best_epoch_is_exported(reference):
    losses = [row["loss"] for row in rows(reference, "valid")]
    assert checkpoint.load(reference / "last.safetensors")[1]["best"] == min(losses)
    best = load(reference).state_dict()
    tensors, _ = checkpoint.load(reference / "last.safetensors")
    is_last = all(torch.equal(best[key], tensors[f"network/{key}"]) for key in best)
    assert is_last == (losses[-1] == min(losses))
    hparams = json.loads((reference / "hparams.json").read_text())
    assert (hparams["environment"], hparams["views"]) == (PointWorld.name, 2)


def test_an_epoch_without_gain_is_not_exported(overrides, monkeypatch):
    config = compose([*overrides, "encoder.vqvae.epochs=2"])
    exported = []
    monkeypatch.setattr(training, "save_folder", lambda *_: exported.append(True))
    losses = iter([2.0, 3.0])
    monkeypatch.setattr(VQVAETraining, "figures", lambda *_: {"loss": next(losses), "psnr": 0.0})
    monkeypatch.setattr(training.EncoderTrainer, "_log", lambda *_: {})
    train.run(config)
    assert exported == [True]


def test_the_learning_rate_falls_after_each_epoch(reference):
    rates = [row["lr"] for row in rows(reference, "train")]
    assert rates == pytest.approx([2e-4 * 0.95**epoch for epoch in (0, 1, 2, 2)])


@pytest.mark.parametrize(("given", "warm"), [("null", 5e-4), ("2e-3", 2e-3)])
def test_warm_up_may_have_a_learning_rate_of_its_own(given, warm):
    settings = ["encoder.dlp.warmup_epoch=2", f"encoder.dlp.warmup_lr={given}"]
    size = ["encoder.image_size=64", "encoder.dlp.n_kp_enc=4"]
    config = compose([*settings, *size, "encoder.kind=dlp"])
    model = DLPTraining(config.encoder_settings, 64)
    assert [model.learning_rate(5e-4, epoch) for epoch in range(4)] == [warm, warm, 5e-4, 5e-4]


def test_an_encoder_learns_its_images(overrides, monkeypatch):
    monkeypatch.setattr(
        "visual_encoders.train.open_frames", lambda *_, **__: [Drawn(64, squares)] * 2
    )
    config = compose(
        [*overrides, "encoder.updates_per_epoch=30", "encoder.lr=0.003", "encoder.vqvae.epochs=1"]
    )
    train.run(config)
    loss = [row["l1"] for row in rows(folder_of(config), "train")]
    assert loss[-1] < 0.5 * loss[0]


def test_adam_takes_the_steps_of_the_settings(overrides):
    """One update by hand: decoupled weight decay, then a step of size lr where eps is small."""
    config = compose(
        [*overrides, "encoder.updates_per_epoch=1", "encoder.vqvae.epochs=1", "encoder.lr=0.01",
         "encoder.adam_eps=1e-12", "encoder.weight_decay=0.5"]
    )  # fmt: skip
    train.run(config)
    tensors, _ = checkpoint.load(folder_of(config) / "last.safetensors")
    torch.manual_seed(config.seed)
    before = VQVAETraining(config.encoder_settings, 16).network.state_dict()
    name = "decoder.conv_out.bias"
    expected = (
        before[name] * (1 - 0.01 * 0.5)
        - 0.01 * tensors["adam/state/" + place(before, name) + "/exp_avg"].sign()
    )
    assert torch.allclose(tensors[f"network/{name}"], expected, atol=1e-6)


def place(state, name: str) -> str:
    """Number of a parameter in its optimiser."""
    return str(list(state).index(name))


# --- stopped and continued ------------------------------------------------------------------------

CRASHES = {
    "first update": (VQVAETraining, "forward", 1, False),
    "between checkpoints": (VQVAETraining, "forward", 8, False),
    "before a row": (MetricsLog, "write", 3, False),
    "after a row": (Tracker, "log", 3, False),
    "in a validation": (VQVAETraining, "pictures", 1, False),
    "before the export": (training, "save_folder", 1, False),
    "after the export": (training, "save_folder", 1, True),
    "while a file takes its place": (os, "replace", 9, False),
    "after the last export": (training.EncoderTrainer, "_save_last", 5, False),
}


@pytest.mark.parametrize("point", CRASHES)
def test_a_crash_leaves_no_trace(point, overrides, reference):
    owner, name, call, after = CRASHES[point]
    config = compose(overrides)
    with pytest.MonkeyPatch.context() as patch:
        fail_at(patch, owner, name, call, after=after)
        with pytest.raises(Crash):
            train.run(config)
    torch.rand(3)  # whatever else draws from torch's own generator
    train.run(config)
    assert_same_run(folder_of(config), reference)


@pytest.mark.parametrize(
    ("owner", "name", "step"),
    [(training.EncoderUpdates, "run", 1), (training.EncoderTrainer, "_evaluate", 4)],
)
def test_a_signal_saves_and_the_same_command_continues(
    owner, name, step, overrides, reference, capsys
):
    config = compose(overrides)
    real = getattr(owner, name)

    def signalled(*args):
        signal.raise_signal(signal.SIGTERM)
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, signalled)
        with pytest.raises(SystemExit) as ending:
            train.run(config)
    assert ending.value.code == 128 + signal.SIGTERM
    assert "stopped; the same command continues" in capsys.readouterr().out
    assert checkpoint.load(folder_of(config) / "last.safetensors")[1]["step"] == step
    train.run(config)
    assert f"continuing {folder_of(config)} at update {step}\n" in capsys.readouterr().out
    assert_same_run(folder_of(config), reference)
    train.run(config)
    assert "already finished, 12 updates" in capsys.readouterr().out


def test_a_killed_process_is_continued_to_the_same_bits(overrides, reference):
    config = compose(overrides)
    endless = compose([*overrides, "encoder.read_workers=1", "encoder.vqvae.epochs=10000"])
    process = multiprocessing.get_context("fork").Process(target=train.run, args=(endless,))
    process.start()
    last = folder_of(config) / "last.safetensors"
    deadline = time.monotonic() + 120
    while not last.exists():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    if checkpoint.load(last)[1]["step"] > 12:
        pytest.skip("it came further than the reference")
    train.run(config)
    assert_same_run(folder_of(config), reference)


def test_dlp_goes_on_through_its_phases_as_it_would_have(tmp_path, monkeypatch):
    monkeypatch.setattr("visual_encoders.train.open_frames", lambda *_, **__: [Drawn(8, noise)] * 2)
    whole, broken = (
        compose([*SETTINGS, *DLP, f"output_dir={tmp_path / name}"]) for name in ("a", "b")
    )
    train.run(whole)
    with pytest.MonkeyPatch.context() as patch:
        fail_at(patch, training.EncoderUpdates, "run", 5)
        with pytest.raises(Crash):
            train.run(broken)
    train.run(broken)
    folder = folder_of(whole)
    assert_same_run(folder_of(broken), folder, published.load)
    row, *_ = rows(folder, "valid")
    assert {"loss", "rec", "psnr", "active", "kl_base", "kl_on", "kl_background"} < row.keys()
    # Warm-up reconstructs glimpses, a sixteenth of an image, and what follows whole images.
    errors = [row["rec"] for row in rows(folder, "train")]
    assert 5 * errors[0] < errors[1]
    assert Image.open(folder / "pictures/epoch_0001.png").size == (64, 5 * 64)


# --- several processes ----------------------------------------------------------------------------


def test_two_processes_compute_the_gradients_of_one(overrides, noise_data, tmp_path):
    short = ["encoder.updates_per_epoch=2", "encoder.vqvae.epochs=1", "encoder.vqvae.dropout=0",
             "encoder.log_freq=1", "encoder.valid_images=9"]  # fmt: skip
    alone = compose([*overrides, *short])
    train.run(alone)
    together = [*overrides, *short, f"output_dir={tmp_path / 'two'}"]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = ("-m", "visual_encoders.train", *together)
    processes = [start(*command, RANK=str(r), LOCAL_RANK=str(r), **place) for r in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    one, two = folder_of(alone), folder_of(compose(together))
    tensors, tensors2 = (checkpoint.load(f / "last.safetensors")[0] for f in (one, two))
    moments = [key for key in tensors if key.endswith("exp_avg")]  # means of the gradients
    assert len(moments) == len(list(VQVAETraining(alone.encoder_settings, 16).parameters()))
    for key in moments:
        assert torch.allclose(tensors[key], tensors2[key], rtol=1e-4, atol=1e-7), key
    for name in ("train", "valid"):
        for row, row2 in zip(rows(one, name), rows(two, name), strict=True):
            assert row == pytest.approx(row2, rel=1e-4)


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_encoder_s_run_knows_its_images(split, overrides, noise_data, tmp_path, capsys):
    data = shutil.copytree(noise_data, tmp_path / "own")
    short = [*overrides, f"data_dir={data}", "encoder.updates_per_epoch=1"]

    def once(epochs: int, *more: str) -> None:
        train.run(compose([*short, f"encoder.vqvae.epochs={epochs}", *more]))

    once(1)
    shutil.copy(episode_path(data / "noise", "train", 2), episode_path(data / "noise", split, 0))
    kind = {"train": "dataset", "val": "validation"}[split]
    assert f"learned from other data: {kind} {data}/noise (" in refusal(once, 1)
    capsys.readouterr()
    once(2, "allow_changed_data=true")
    assert f"  changed: {kind} {data}/noise (" in capsys.readouterr().out
    once(3)
    starts = json.loads((folder_of(compose(short)) / "provenance.json").read_text())
    assert len(starts) == 3 and starts[0]["data"] != starts[1]["data"] == starts[2]["data"]


# --- mistakes -------------------------------------------------------------------------------------


def problem(overrides: list[str], *more: str) -> str:
    return refusal(lambda: train.run(compose([*overrides, *more])))


def test_data_that_do_not_fit(overrides, tiny_data, tmp_path):
    assert "frames of 16 x 16 pixels; set encoder.image_size (now 32)" in problem(
        overrides, "encoder.image_size=32"
    )
    assert "120 training images, fewer than encoder.batch_size=121" in problem(
        overrides, "encoder.batch_size=121"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dataset, "column", lambda *_: ((16, 16, 4), "uint8"))
        assert "has images of 4 channels and encoders are trained on 3 (RGB)" in problem(overrides)
    states = [f"data_dir={tiny_data}", "train_dataset_name=tiny"]
    assert "has no column observations" in problem(overrides, *states)
    (tmp_path / "far.npz").touch()
    npz = [f"data_dir={tmp_path}", "train_dataset_name=far"]
    assert "datasets.convert import" in problem(overrides, *npz)
    assert "obs=rgb" in problem(overrides, "train_dataset_name=absent")
    assert not (tmp_path / "encoders").exists()


def test_a_missing_perceptual_network_is_said(overrides, tmp_path):
    message = problem(overrides, f"encoder.vqvae.lpips={tmp_path}/none")
    assert "download_chkpts" in message and "encoder.vqvae.lpips=null" in message


def test_a_loss_that_is_not_finite_ends_the_run(overrides, monkeypatch):
    real = VQVAETraining.forward

    def broken(*args):
        loss, metrics = real(*args)
        return loss, metrics | {"l1": torch.tensor(float("nan"))}

    monkeypatch.setattr(VQVAETraining, "forward", broken)
    message = problem(overrides)
    assert message.startswith("l1 not finite between updates 0 and 3. Lower encoder.lr")


def test_encoder_runs_have_names_of_their_own(overrides):
    def name(*more: str) -> str:
        return train_name(compose([*overrides, *more]), ENCODER_RUNS)

    assert name().startswith("vqvae_noise_0_")
    same = ["agent=iql", "encoder.read_workers=3", "encoder.vqvae.epochs=9", "batch_size=4"]
    assert {name(change) for change in same} == {name()}
    other = ["seed=1", "encoder.lr=0.1", "encoder.vqvae.n_embed=9", "train_dataset_div=2"]
    assert len({name(change) for change in other} | {name()}) == 5
    agent = train_name(compose(overrides))
    assert train_name(compose([*overrides, "encoder.lr=0.1"])) == agent


def test_psnr_by_hand():
    x, y = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    y[0] += 0.1  # 20 dB; the second image is the same: at most 100 dB
    assert float(psnr(x, y)) == pytest.approx(np.mean([20, 100]), rel=1e-5)
