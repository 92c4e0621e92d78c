"""The page: everything in it, nothing outside; pictures and videos load in a browser."""

import base64
import html.parser
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from common.evaluation.video import save_picture, save_video
from common.paper import records, tables
from common.tools import report
from tests.helpers.run_folders import add_evaluation, add_run

CELL = "ppp-state/ec-sgiql"
BROWSERS = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome")
VOID = {"img", "meta", "br", "link", "input", "hr"}
PROBE = """<script>
addEventListener("load", async () => {
  const width = video => new Promise(done => {
    video.onloadeddata = () => done(video.videoWidth);
    video.onerror = () => done(0);
    video.load();
  });
  const videos = await Promise.all([...document.querySelectorAll("video")].map(width));
  const images = [...document.images].map(image => image.naturalWidth);
  document.title = JSON.stringify({images, videos});
});
</script>"""


class Reader(html.parser.HTMLParser):
    """Collects the sources of pictures and videos, all links, and the text of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: dict[str, list[str]] = {"img": [], "video": []}
        self.links: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.links += [found[name] for name in ("href", "src", "poster") if name in found]
        if tag in self.sources:
            self.sources[tag].append(found["src"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def decode(source: str, kind: str) -> bytes:
    head, _, content = source.partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(content, validate=True)


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """A run with a film of its training and an evaluation with film and strip."""
    root = tmp_path_factory.mktemp("output")
    run = add_run(root, CELL, 0)
    evaluation = add_evaluation(root, CELL, 0, [1, 0, 1], changed=[1, 2, 1])
    frames = [np.full((32, 48, 3), 60 * i, np.uint8) for i in range(4)]
    for path in (run / "video_9.mp4", run / "video_10.mp4", evaluation / "video.mp4"):
        save_video(path, frames)
    save_picture(evaluation / "strip.png", frames[1])
    return root


@pytest.fixture(scope="module")
def page(output) -> str:
    """About the run, and the tables made from it."""
    folder = output / "tables"
    tables.main([str(output), "--table", "main"])
    (run,) = (output / "train").iterdir()
    report.main([str(run), str(folder), "--to", str(output / "page.html")])
    return (output / "page.html").read_text()


def test_pictures_and_videos_are_inline_and_decode(page):
    read = Reader(page)
    assert len(read.sources["video"]) == 2  # the newest of the training's, and the evaluation's
    for source in read.sources["video"]:
        frames = imageio.imread(io.BytesIO(decode(source, "video/mp4")), extension=".mp4")
        assert frames.shape == (4, 32, 48, 3)
    sizes = [Image.open(io.BytesIO(decode(s, "image/png"))).size for s in read.sources["img"]]
    assert (48, 32) in sizes and len(sizes) == 4  # curves, strip, a table, learning curves


def test_nothing_outside_the_page_is_needed(page):
    assert all(link.startswith(("data:", "#part")) for link in Reader(page).links)
    assert not re.search(r"@import|url\(|<script|<link|<iframe", page)


def test_settings_results_and_episodes_are_there(page):
    cells = Reader(page).cells
    assert cells[cells.index("env_kwargs.manipobj.num_cubes") + 1] == "2"
    assert cells[cells.index("success") + 1] == "0.667"
    start = next(i for i in range(len(cells)) if cells[i : i + 2] == ["2", "9"])
    assert cells[start : start + 7] == ["2", "9", "1", "1", "1", "1", "1"]  # the last episode
    assert "a processor" in cells and "0123456789abcdef" in cells
    changed = page[page.index("Settings unlike") : page.index("All settings")]
    assert "num_cubes" in changed and "n_diffusion_samples" not in changed
    assert "n_diffusion_samples" in page


def test_text_is_escaped(output, tmp_path):
    evaluation = shutil.copytree(next((output / "eval").iterdir()), tmp_path / "a&b")
    metrics = json.loads((evaluation / "metrics.json").read_text())
    metrics["provenance"]["device_name"] = "<script>alert(1)</script>"
    (evaluation / "metrics.json").write_text(json.dumps(metrics))
    report.main([str(evaluation)])
    text = (evaluation / "report.html").read_text()
    assert "<script>" not in text and "&lt;script&gt;" in text and "a&amp;b" in text


def test_an_evaluation_with_tasks_and_without_film(tmp_path):
    folder = add_evaluation(tmp_path, CELL, 0, [1, 0])
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["tasks"] = {"3": metrics["summary"]}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    text = report.make_report([folder])
    assert "<h3>Task 3</h3>" in text and "<video" not in text


def test_other_folders_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        report.main([str(tmp_path)])
    assert end.value.code == 2
    assert "is no folder of a run, of an evaluation or of tables" in capsys.readouterr().err


def test_tables_alone(output, tmp_path):
    data, _ = records.gather(output)
    records.save(tmp_path, data)
    text = report.make_report([tmp_path])
    assert "EC-SGIQL" in text and "82.5 ± 3.1" in text


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="there is no Chromium here")
def test_pictures_and_videos_load_in_a_browser(page, tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)))
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{PROBE}</body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    flags += [f"--user-data-dir={tmp_path}/profile", "--dump-dom"]
    command = [browser, *flags, (tmp_path / "page.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    widths = json.loads(re.search(r"<title>(.*?)</title>", dom)[1])
    assert widths["videos"] == [48, 48]
    assert len(widths["images"]) == 4 and all(widths["images"])
