"""Checkpoints: exact round trips, atomic writes, clear refusals."""

import json
import os
import pickle

import pytest
import torch

from common.foundation import files
from common.foundation.errors import UserError
from common.runs import checkpoint
from common.runs.checkpoint import flatten, load, save, unflatten


def through_file(nested, path):
    tensors, structure = flatten(nested)
    save(path, tensors, {"structure": structure})
    tensors, meta = load(path)
    return unflatten(tensors, meta["structure"])


def equal(a, b) -> bool:
    """Equality to the bit, of types too."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return (
            a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
        )
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def trained_model(steps: int) -> tuple[torch.nn.Module, torch.optim.Adam]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1))
    adam = torch.optim.Adam(model.parameters(), lr=3e-4)
    advance(model, adam, steps)
    return model, adam


def advance(model, adam, steps: int) -> None:
    data = torch.linspace(-1, 1, 6).view(2, 3)
    for _ in range(steps):
        adam.zero_grad()
        model(data).square().sum().backward()
        adam.step()


def test_adam_and_module_come_back_to_the_bit(tmp_path):
    model, adam = trained_model(3)
    generator = torch.Generator().manual_seed(5)
    torch.rand(7, generator=generator)
    state = {
        "model": dict(model.state_dict()),
        "adam": adam.state_dict(),
        "rng": generator.get_state(),
        "step": 3,
    }
    restored = through_file(state, tmp_path / "last.safetensors")
    assert equal(restored, state)

    other, other_adam = trained_model(0)
    other.load_state_dict(restored["model"])
    other_adam.load_state_dict(restored["adam"])
    advance(model, adam, 2)
    advance(other, other_adam, 2)
    assert equal(dict(other.state_dict()), dict(model.state_dict()))
    assert equal(other_adam.state_dict(), adam.state_dict())

    twin = torch.Generator()
    twin.set_state(restored["rng"])
    assert torch.equal(torch.rand(5, generator=twin), torch.rand(5, generator=generator))


def test_odd_values_survive(tmp_path):
    nested = {
        "special": torch.tensor([float("nan"), -0.0, float("inf"), 1e-45]),
        "kinds": [torch.tensor(3), torch.zeros(0, 2), torch.ones(2, dtype=torch.bfloat16).float()],
        "betas": (0.9, 0.1 + 0.2),
        3: {"a": None, "b": True},
        "a": {"b": torch.zeros(1)},
        "a/b": torch.ones(1),
        "tensor": "a word",
        "empty": [{}, [], ()],
    }
    assert equal(through_file(nested, tmp_path / "x"), nested)


def test_a_single_tensor_and_shared_or_strided_memory(tmp_path):
    base = torch.arange(6.0).view(2, 3)
    assert equal(through_file(base, tmp_path / "x"), base)
    shared = {"all": base, "row": base[0], "t": base.T, "wide": torch.ones(1).expand(4)}
    restored = through_file(shared, tmp_path / "x")
    assert all(torch.equal(restored[name], shared[name]) for name in shared)


def test_values_that_json_would_change_are_refused():
    with pytest.raises(TypeError, match="a/0: cannot store set"):
        flatten({"a": [{1, 2}]})
    with pytest.raises(TypeError, match=r"key 1\.5"):
        flatten({1.5: 1})


def test_loaded_tensors_are_independent_of_the_file(tmp_path):
    path = tmp_path / "x"
    save(path, {"a": torch.zeros(4)}, {})
    tensors, _ = load(path)
    tensors["a"] += 1
    save(path, {"a": torch.full((4,), 7.0)}, {})
    assert tensors["a"].tolist() == [1.0] * 4
    assert load(path)[0]["a"].tolist() == [7.0] * 4


class Torn(Exception):
    pass


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_an_interrupted_save_leaves_the_previous_file(tmp_path, monkeypatch, moment):
    path = tmp_path / "last.safetensors"
    save(path, {"a": torch.zeros(2)}, {"step": 1})

    def fail(*_):
        raise Torn

    with monkeypatch.context() as patch:
        patch.setattr(files.os, moment, fail)
        with pytest.raises(Torn):
            save(path, {"a": torch.ones(2)}, {"step": 2})
    tensors, meta = load(path)
    assert meta == {"step": 1} and tensors["a"].tolist() == [0, 0]
    assert os.listdir(tmp_path) == ["last.safetensors"]


def test_what_a_killed_save_left_goes_with_the_next(tmp_path):
    path = tmp_path / "last.safetensors"
    (tmp_path / ".last.safetensors.tmp").write_bytes(b"half a checkpoint" * 1000)
    save(path, {"a": torch.ones(2)}, {})
    assert os.listdir(tmp_path) == ["last.safetensors"]
    assert load(path)[0]["a"].tolist() == [1, 1]


def test_a_full_disk_is_one_line_and_keeps_the_previous_file(tmp_path, monkeypatch):
    path = tmp_path / "last.safetensors"
    save(path, {"a": torch.zeros(2)}, {})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*last\.safetensors: No space left"):
        save(path, {"a": torch.ones(2)}, {})
    assert load(path)[0]["a"].tolist() == [0, 0]


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*No such file"):
        save(tmp_path / "none" / "x", {}, {})


def test_files_that_are_not_whole_checkpoints_are_named(tmp_path):
    path = tmp_path / "last.safetensors"
    with pytest.raises(UserError, match=r"no checkpoint at .*last\.safetensors"):
        load(path)
    save(path, {"a": torch.ones(100)}, {})
    content = path.read_bytes()
    for length in (0, 5, 100, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"last\.safetensors is damaged or not a checkpoint"):
            load(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UserError, match="not a checkpoint"):
        load(path)
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(UserError, match="is not a checkpoint of this code"):
        load(path)


def test_no_pickle_is_involved(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("pickle")

    for module, name in [(pickle, "loads"), (pickle, "load"), (torch, "load"), (torch, "save")]:
        monkeypatch.setattr(module, name, refuse)
    assert through_file({"a": torch.ones(2)}, tmp_path / "x")["a"].tolist() == [1, 1]


def test_json_files(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": [1, None]})
    assert files.read_json(path) == {"a": [1, None]} == json.loads(path.read_text())
    path.write_text("{")
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        files.read_json(path)
    with pytest.raises(UserError, match="cannot read"):
        files.read_json(tmp_path / "b.json")


def test_format_is_written(tmp_path):
    save(tmp_path / "x", {}, {"step": 4})
    assert checkpoint.FORMAT.encode() in (tmp_path / "x").read_bytes()
    assert load(tmp_path / "x") == ({}, {"step": 4})
