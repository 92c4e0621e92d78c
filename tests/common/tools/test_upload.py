"""Uploads to a server on this machine that answers as the hub does."""

import base64
import hashlib
import http.server
import json
import threading
from pathlib import Path

import pytest

from common.foundation.errors import UserError
from common.tools import upload

LARGE = bytes(range(256)) * 8


class FakeHub(http.server.BaseHTTPRequestHandler):
    """Repositories in memory: files above 1,000 bytes go the way of large ones."""

    protocol_version = "HTTP/1.1"
    repositories: dict[str, dict[str, bytes]]
    blobs: dict[str, bytes]
    commits: list[int]  # files in each
    sent: list[str]  # large files by hash
    refuse = 0  # this status to everything

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refuse:
            self._answer({"error": "no"}, self.refuse)
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [(f["path"], "lfs" if f["size"] > 1000 else "regular") for f in files]
            answer = [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes]
            self._answer({"files": answer})
        elif self.path.endswith("/info/lfs/objects/batch"):
            self._answer({"objects": [self._large(o) for o in json.loads(body)["objects"]]})
        else:
            self._commit([json.loads(line) for line in body.splitlines()])

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        digest = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == digest
        self.blobs[digest] = content
        self.sent.append(digest)
        self._answer({})

    def _create(self, wanted: dict) -> None:
        kind = wanted.get("type", "model")
        name = f"{kind}s/{wanted['organization']}/{wanted['name']}"
        status = 409 if name in self.repositories else 200
        self.repositories.setdefault(name, {})
        url = f"http://{self.headers['Host']}/{name.removeprefix('models/')}"
        self._answer({"url": url}, status)

    def _large(self, wanted: dict) -> dict:
        if wanted["oid"] in self.blobs:
            return wanted  # without actions: it is there
        href = f"http://{self.headers['Host']}/blobs/{wanted['oid']}"
        return wanted | {"actions": {"upload": {"href": href}}}

    def _commit(self, lines: list[dict]) -> None:
        files = self.repositories[self.path.removeprefix("/api/").partition("/commit/")[0]]
        for line in lines[1:]:
            value = line["value"]
            content = (
                self.blobs[value["oid"]] if "oid" in value else base64.b64decode(value["content"])
            )
            files[value["path"]] = content
        self.commits.append(len(lines) - 1)
        address = f"https://huggingface.co/someone/it/commit/{'0' * 40}"
        self._answer({"commitUrl": address, "commitOid": "0" * 40})

    def _answer(self, content: dict, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    class Handler(FakeHub):
        repositories, blobs, commits, sent = {}, {}, [], []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.server_port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        # The hub's newer way for large files, a program of its own, is not played here.
        monkeypatch.setattr("huggingface_hub._commit_api.is_xet_available", lambda: False)
        monkeypatch.setattr("huggingface_hub.hf_api.is_xet_available", lambda: False, raising=False)
        yield Handler
        running.shutdown()


def folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


@pytest.fixture
def agent(tmp_path) -> Path:
    files = {"last.safetensors": LARGE, "config.json": b"{}", "eval.csv": b"step\n"}
    return folder(tmp_path / "mine", files | {".lock": b"1", "video_10.mp4": b"film"})


@pytest.fixture
def data(tmp_path) -> Path:
    episodes = {f"train/00000{i}.h5": bytes([i]) for i in range(5)} | {"val/000000.h5": LARGE}
    header = json.dumps({"complete": True}).encode()
    return folder(tmp_path / "cubes", episodes | {"header.json": header})


def test_agents_and_tables_go_to_a_repository_for_models(server, agent, tmp_path, capsys):
    tables = folder(tmp_path / "laptop", {"runs.csv": b"a\n", "main.md": b"# Main\n"})
    upload.main(["someone/agents", str(agent), str(tables)])
    assert server.repositories == {
        "models/someone/agents": {
            "mine/last.safetensors": LARGE,
            "mine/config.json": b"{}",
            "mine/eval.csv": b"step\n",
            "laptop/runs.csv": b"a\n",
            "laptop/main.md": b"# Main\n",
        }
    }
    assert capsys.readouterr().out.splitlines()[-1].endswith("/someone/agents")


def test_a_second_upload_adds_to_the_repository_and_sends_no_large_file_again(server, agent):
    for _ in range(2):
        upload.upload("someone/agents", [agent])
    assert len(server.sent) == 1 and server.commits == [3, 3]


def test_datasets_go_in_batches_to_a_repository_of_their_own_kind(server, data, monkeypatch):
    monkeypatch.setattr(upload, "PER_COMMIT", 3)
    upload.upload("someone/data", [data])
    (files,) = server.repositories.values()
    assert list(server.repositories) == ["datasets/someone/data"]
    assert len(files) == 7 and files["cubes/val/000000.h5"] == LARGE
    assert server.commits == [3, 3, 1]


def test_mistakes_are_explained(server, agent, data, tmp_path):
    with pytest.raises(UserError, match="datasets have a repository of their own"):
        upload.upload("someone/all", [agent, data])
    with pytest.raises(UserError, match="is no agent, dataset or folder of tables; give one with"):
        upload.upload("someone/all", [tmp_path])
    (data / "header.json").write_text(json.dumps({"complete": False}))
    with pytest.raises(UserError, match=r"cubes is not complete; run the command again"):
        upload.upload("someone/all", [data])
    assert server.repositories == {}


def test_strangers_are_told_to_log_in(server, agent):
    server.refuse = 401
    with pytest.raises(UserError, match=r"does not let you upload to someone/agents; .*HF_TOKEN"):
        upload.upload("someone/agents", [agent])
