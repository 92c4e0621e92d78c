"""Downloads against a server on this machine: resumed, verified, and never half in place."""

import hashlib
import http.server
import threading
from pathlib import Path

import pytest

from common.foundation import hub
from common.foundation.errors import UserError
from common.foundation.hub import Collection, fetch
from datasets.download_datasets import DATASETS
from visual_encoders.download_chkpts import ENCODERS

LARGE = bytes(range(256)) * 400
SMALL = b'{"ch": 3}'


class FakeHub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does: hash and size in headers, ranges, 404 for the unknown."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]
    ranges: list[str | None]
    damage = False

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        if self.path in self.files:  # the library asks for other things as well
            self.ranges.append(self.headers.get("Range"))
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        content = self.files.get(self.path)
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int((self.headers.get("Range") or "bytes=0-")[6:].rstrip("-"))
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hub_hash(content)}"')
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if with_body:
            self.wfile.write(body[::-1] if self.damage else body)

    def log_message(self, *_: object) -> None:
        pass


def hub_hash(content: bytes) -> str:
    """SHA-256 of a large file; of a small one the hash that git gives its blob."""
    if len(content) > 1000:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


COLLECTION = Collection(
    what="thing",
    repository="someone/things",
    kind="model",
    entries={"big": ("a/big.bin",), "both": ("a/big.bin", "a/small.json"), "gone": ("b",)},
    folder=Path("unused"),
)


@pytest.fixture
def server(monkeypatch):
    class Handler(FakeHub):
        files = {  # noqa: RUF012
            "/someone/things/resolve/main/a/big.bin": LARGE,
            "/someone/things/resolve/main/a/small.json": SMALL,
            "/datasets/DanHrmti/hecrl/resolve/main/ppp-cube-noisy-v0-mv.npz": LARGE,
        }
        ranges = []  # noqa: RUF012

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        serve = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        serve.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.server_port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield Handler
        running.shutdown()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_files_arrive_whole_and_are_not_fetched_twice(server, tmp_path, capsys):
    hub.main(COLLECTION, ["both", "--folder", str(tmp_path)])
    assert (tmp_path / "a/big.bin").read_bytes() == LARGE
    assert (tmp_path / "a/small.json").read_bytes() == SMALL
    assert names(tmp_path) == ["big.bin", "small.json"]
    hub.main(COLLECTION, ["both", "--folder", str(tmp_path)])
    assert capsys.readouterr().out.count("already there") == 2
    assert len(server.ranges) == 2


def test_a_killed_download_is_continued(server, tmp_path, monkeypatch):
    def die_half_way(url, file, **_):
        file.write(LARGE[:1000])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.http_get", die_half_way)
        with pytest.raises(KeyboardInterrupt):
            fetch(COLLECTION, "a/big.bin", tmp_path)
    assert "big.bin" not in names(tmp_path)
    assert fetch(COLLECTION, "a/big.bin", tmp_path)
    assert server.ranges == ["bytes=1000-"]
    assert (tmp_path / "a/big.bin").read_bytes() == LARGE
    assert names(tmp_path) == ["big.bin"]


def test_damage_on_the_way_is_noticed_and_leaves_nothing(server, tmp_path):
    server.damage = True
    with pytest.raises(UserError, match=r"a/big\.bin was damaged on its way; run"):
        fetch(COLLECTION, "a/big.bin", tmp_path)
    assert names(tmp_path) == []
    server.damage = False
    assert fetch(COLLECTION, "a/big.bin", tmp_path)


@pytest.mark.parametrize("content", [b"mine", LARGE[::-1]])
def test_a_file_in_the_way_is_left_alone(server, tmp_path, content):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/big.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"big\.bin is not the published file; move it away"):
        fetch(COLLECTION, "a/big.bin", tmp_path)
    assert (tmp_path / "a/big.bin").read_bytes() == content
    assert server.ranges == []


def test_a_full_disk_is_said_before_the_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(UserError, match=r"0\.0 GB free .* make room"):
        fetch(COLLECTION, "a/big.bin", tmp_path)


def test_a_file_that_the_hub_has_not(server, tmp_path):
    with pytest.raises(UserError, match="does not exist on the hub"):
        fetch(COLLECTION, "b", tmp_path)


def test_without_a_network_there_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(SystemExit) as end:
        hub.main(COLLECTION, ["big", "--folder", str(tmp_path)])
    message = capsys.readouterr().err
    assert end.value.code == 2
    assert message.startswith("error: cannot fetch http://127.0.0.1:9/someone/things/resolve/main")
    assert message.count("\n") == 1 and "the same command continues" in message
    assert names(tmp_path) == []


def test_names():
    assert COLLECTION.files(["big"]) == ["a/big.bin"]
    with pytest.raises(UserError, match="no thing is called bg; known: big, both, gone, all"):
        COLLECTION.files(["big", "bg"])
    assert len(ENCODERS.files(["all"])) == 12
    assert ENCODERS.files(["dlp-push-tetris-v0"]) == [
        "dlp-push-tetris-v0/hparams.json",
        "dlp-push-tetris-v0/best.pth",
    ]
    assert DATASETS.files(["stack-cube", "all"]) == DATASETS.files(["all"])
    assert len(DATASETS.files(["all"])) == 4


def test_datasets_come_from_their_own_kind_of_repository(server, tmp_path):
    assert fetch(DATASETS, "ppp-cube-noisy-v0-mv.npz", tmp_path)
    assert (tmp_path / "ppp-cube-noisy-v0-mv.npz").read_bytes() == LARGE
