"""Uploads: the files that the hub's library is given, and mistakes."""

import json
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from common.foundation.errors import UserError
from common.tools import hub


@pytest.fixture
def sent(monkeypatch) -> dict[str, bytes]:
    """Files that reach the hub, by "KIND OWNER/NAME/PATH"."""
    found: dict[str, bytes] = {}

    def commit(_, repo_id, operations, repo_type, **__):
        for operation in operations:
            with operation.as_file() as file:
                found[f"{repo_type} {repo_id}/{operation.path_in_repo}"] = file.read()

    monkeypatch.setattr(HfApi, "create_repo", lambda _, name, **__: f"https://hub/{name}")
    monkeypatch.setattr(HfApi, "create_commit", commit)
    monkeypatch.setattr("huggingface_hub.hf_api.is_xet_available", lambda: False)
    return found


def folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


@pytest.fixture
def agent(tmp_path) -> Path:
    files = {"last.safetensors": b"weights", "config.json": b"{}", "eval.csv": b"step\n"}
    here = {".lock": b"1", ".hidden.json": b"2", "video_10.mp4": b"film", "jobs/0.json": b"3"}
    return folder(tmp_path / "mine", files | here)


@pytest.fixture
def data(tmp_path) -> Path:
    episodes = {f"train/00000{i}.h5": bytes([i]) for i in range(2)} | {"val/000000.h5": b"last"}
    header = json.dumps({"complete": True}).encode()
    return folder(tmp_path / "cubes", episodes | {"header.json": header, "train/.5.h5": b"torn"})


def test_agents_and_tables_go_to_a_repository_for_models(sent, agent, tmp_path, capsys):
    tables = folder(tmp_path / "laptop", {"runs.csv": b"a\n", "main.md": b"# Main\n"})
    hub.main(["someone/agents", str(agent), str(tables)])
    assert sent == {
        "model someone/agents/mine/last.safetensors": b"weights",
        "model someone/agents/mine/config.json": b"{}",
        "model someone/agents/mine/eval.csv": b"step\n",
        "model someone/agents/laptop/runs.csv": b"a\n",
        "model someone/agents/laptop/main.md": b"# Main\n",
    }
    assert capsys.readouterr().out.splitlines()[-1].endswith("/someone/agents")


def test_datasets_go_to_a_repository_of_their_own_kind(sent, data):
    hub.upload("someone/data", [data])
    names = ["header.json", "train/000000.h5", "train/000001.h5", "val/000000.h5"]
    assert sorted(sent) == [f"dataset someone/data/cubes/{name}" for name in names]


def test_mistakes_are_explained(sent, agent, data, tmp_path):
    with pytest.raises(UserError, match="datasets have a repository of their own"):
        hub.upload("someone/all", [agent, data])
    with pytest.raises(UserError, match="is no agent, dataset or folder of tables; give one with"):
        hub.upload("someone/all", [tmp_path])
    (data / "header.json").write_text(json.dumps({"complete": False}))
    with pytest.raises(UserError, match=r"cubes is not complete; run the command again"):
        hub.upload("someone/all", [data])
    assert sent == {}


def test_strangers_are_told_to_log_in(agent, monkeypatch):
    def refuse(*_, **__):
        raise HfHubHTTPError("no", response=httpx.Response(401, request=httpx.Request("GET", "a:")))

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(UserError, match=r"does not let you upload to someone/agents; .*HF_TOKEN"):
        hub.upload("someone/agents", [agent])
