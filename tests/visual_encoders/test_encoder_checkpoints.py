"""Checkpoint folders of encoders: round trips, and one clear line for each kind of mistake."""

import json
from dataclasses import dataclass

import pytest
import torch

from common.settings.schema import SettingError, setting
from tests.helpers.crashes import refusal
from visual_encoders.checkpoints import load_folder, read_settings, save_folder, select_entries

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "scalar": torch.tensor(0.5).double()}


@pytest.fixture
def folder(tmp_path):
    save_folder(tmp_path / "encoder", {"width": 3, "run": "x"}, WEIGHTS)
    return tmp_path / "encoder"


def test_a_folder_comes_back_to_the_bit(folder):
    hparams, state = load_folder(folder)
    assert hparams == {"width": 3, "run": "x"}
    assert list(state) == list(WEIGHTS)
    for name, tensor in WEIGHTS.items():
        assert state[name].dtype == tensor.dtype and torch.equal(state[name], tensor)
    assert sorted(file.name for file in folder.iterdir()) == ["best.pth", "hparams.json"]


def test_a_view_takes_only_its_own_bytes(tmp_path):
    save_folder(tmp_path, {}, {"part": torch.zeros(1_000_000)[:2]})
    assert (tmp_path / "best.pth").stat().st_size < 10_000


def test_missing_folder_and_missing_files(folder):
    assert "no encoder at" in refusal(load_folder, folder / "absent")
    (folder / "best.pth").unlink()
    assert refusal(load_folder, folder).startswith("best.pth missing in")
    (folder / "hparams.json").unlink()
    assert refusal(load_folder, folder).startswith("hparams.json and best.pth missing in")


def test_damaged_hyperparameters(folder):
    (folder / "hparams.json").write_text("{")
    assert "hparams.json is not valid JSON" in refusal(load_folder, folder)
    (folder / "hparams.json").write_text("[1]")
    assert "does not hold names with values" in refusal(load_folder, folder)


@pytest.mark.parametrize("keep", [0, 10, 400, -30])
def test_weights_cut_short(folder, keep):
    content = (folder / "best.pth").read_bytes()
    (folder / "best.pth").write_bytes(content[:keep])
    assert "best.pth is damaged" in refusal(load_folder, folder)


def test_weights_with_a_flipped_byte(folder):
    content = bytearray((folder / "best.pth").read_bytes())
    place = content.index(WEIGHTS["a.weight"].numpy().tobytes())
    content[place] ^= 1
    (folder / "best.pth").write_bytes(content)
    assert "best.pth is damaged" in refusal(load_folder, folder)


class Code:
    def __reduce__(self):
        return (json.dumps, ("run",))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"a": Code()}, "holds more than weights"),
        ({"a": 3}, "is not a bare state dict"),
        ([torch.zeros(1)], "is not a bare state dict"),
    ],
)
def test_anything_but_tensors_is_refused(folder, content, expected):
    torch.save(content, folder / "best.pth")
    assert expected in refusal(load_folder, folder)


@dataclass(frozen=True)
class Size:
    width: int = setting(low=1)


def test_settings_come_from_the_hyperparameters(folder):
    hparams, _ = load_folder(folder)
    assert read_settings(Size, hparams, folder) == Size(width=3)
    missing = refusal(read_settings, Size, {}, folder)
    assert missing.endswith("hparams.json lacks width; is it of another kind of encoder?")
    with pytest.raises(SettingError, match=r"hparams\.json: width=0 is too small; allowed"):
        read_settings(Size, {"width": 0}, folder)


def test_entries_must_fit():
    state = {**WEIGHTS, "loss.vgg": torch.zeros(1)}
    ignored = ["loss."]
    selected = select_entries(state, {"scalar": torch.tensor(1.0)}, [*ignored, "a.weight"], "f")
    assert list(selected) == ["scalar"]
    unknown = refusal(select_entries, state, {"scalar": torch.tensor(1.0)}, ignored, "f")
    assert (
        unknown == "f/best.pth has the unknown entry a.weight; it does not belong to f/hparams.json"
    )
    lost = {**WEIGHTS, "b": torch.zeros(1), "c": torch.zeros(1)}
    assert "f/best.pth lacks b and 1 more;" in refusal(select_entries, state, lost, ignored, "f")
    other = {**WEIGHTS, "a.weight": torch.zeros(3, 2)}
    wrong = refusal(select_entries, state, other, ignored, "f")
    assert "a.weight has shape (2, 3) instead of (3, 2)" in wrong
