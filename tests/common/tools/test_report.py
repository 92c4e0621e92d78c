"""The page: everything in it, nothing outside; the same as text."""

import base64
import html.parser
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from common.foundation.video import save_picture, save_video
from common.paper import records, tables
from common.tools import report
from tests.helpers.run_folders import add_checkpoint, add_evaluation, add_origin, add_run

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


def metrics_of(evaluation: Path) -> dict[str, Any]:
    return json.loads((evaluation / "metrics.json").read_text())


def change(evaluation: Path, age: float = 0, **changes: Any) -> Path:
    """Write other metrics into an evaluation, which is `age` seconds old then."""
    file = evaluation / "metrics.json"
    file.write_text(json.dumps(metrics_of(evaluation) | changes))
    moment = file.stat().st_mtime - age
    os.utime(file, (moment, moment))
    return evaluation


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
    provenance = metrics_of(evaluation)["provenance"] | {"device_name": "<script>alert(1)</script>"}
    change(evaluation, provenance=provenance)
    report.main([str(evaluation)])
    text = (evaluation / "report.html").read_text()
    assert "<script>" not in text and "&lt;script&gt;" in text and "a&amp;b" in text


def test_an_evaluation_with_tasks_and_without_film(tmp_path):
    folder = add_evaluation(tmp_path, CELL, 0, [1, 0])
    change(folder, tasks={"3": metrics_of(folder)["summary"]})
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


@pytest.fixture
def run(tmp_path) -> Path:
    return tmp_path / "train" / f"{CELL.replace('/', '_')}_0"


def add(root: Path, variant: str, name: str, age: float = 0, **more: Any) -> Path:
    overrides = [f"eval_variant_name={variant or chr(39) * 2}"]
    folder = add_evaluation(root, CELL, 0, [1, 0], name=name, overrides=overrides, **more)
    return change(folder, age)


def test_the_newest_evaluation_of_each_variant_counts(run, tmp_path):
    newest = add(tmp_path, "subgoals", "c", age=10)
    add(tmp_path, "subgoals", "a", age=30)
    add(tmp_path, "subgoals", "d", age=20)
    plain = add(tmp_path, "", "b", age=40)
    found = {variant: folder for variant, (folder, _) in report.evaluations(run).items()}
    assert found == {"as trained": plain, "subgoals": newest}


def test_an_evaluation_of_an_earlier_checkpoint_is_called_so(tmp_path):
    run = add_run(tmp_path, CELL, 0)
    for variant, step in (("old", 20), ("new", 30)):
        folder = add(tmp_path, variant, variant, updates=step)
        add_origin(folder, add_checkpoint(run, step))
    assert set(report.evaluations(run)) == {"old, before it learned on", "new"}
    page = report.make_report([run])
    assert "Evaluation old, before it learned on" in page and "Evaluation new<" in page


@pytest.mark.parametrize(
    ("checkpoint", "counts"),
    [("last.safetensors", True), ("best.safetensors", False), ("../other/last.safetensors", False)],
)
def test_evaluations_of_this_checkpoint_count(run, tmp_path, monkeypatch, checkpoint, counts):
    run.mkdir(parents=True)
    monkeypatch.chdir(run)
    change(add(tmp_path, "subgoals", "a"), checkpoint=checkpoint)  # relative
    assert bool(report.evaluations(run)) == counts


def test_a_line_has_updates_episodes_and_figures_with_intervals(run, tmp_path, capsys):
    """Of metrics that all evaluations have; then there are the files that exist."""
    figure = {"mean": 0.5, "low": 0.36, "high": 0.64}
    summaries = {
        "subgoals": {"episode_reward": figure, "success_frac": figure, "success": figure},
        "no-subgoals": {"success": figure | {"mean": 0.3}, "success_frac": figure},
    }
    for age, (variant, summary) in zip((2, 1), summaries.items(), strict=True):
        folder = add(tmp_path, variant, variant, updates=700)
        change(folder, age, summary=summary, episodes=50)
    made = [run / "curves.png", folder / "video.mp4"]
    run.mkdir(parents=True)
    for path in made:
        path.touch()
    report.main([str(run), "--text"])
    heading, *lines, empty, a, b, c, d = capsys.readouterr().out.splitlines()
    assert heading.split() == ["updates", "episodes", "success", "success_frac"]
    figures = "0.50 [0.36, 0.64]"
    assert [" ".join(line.split()) for line in lines] == [
        f"subgoals 700 50 {figures} {figures}",
        f"no-subgoals 700 50 0.30 [0.36, 0.64] {figures}",
    ]
    assert len({len(line) for line in (heading, *lines)}) == 1
    files = ["train/" + run.name + "/curves.png", "eval/subgoals/episodes.csv"]
    files += ["eval/no-subgoals/video.mp4", "eval/no-subgoals/episodes.csv"]
    assert [empty, a, b, c, d] == ["", *(f"{tmp_path}/{file}" for file in files)]


def test_the_newest_picture_of_the_encoder_is_listed_once(run, tmp_path, capsys):
    pictures = tmp_path / "encoder" / "pictures"
    pictures.mkdir(parents=True)
    for epoch in (1, 2):
        (pictures / f"epoch_000{epoch}.png").touch()
    for variant in ("subgoals", "no-subgoals"):
        folder = add(tmp_path, variant, variant)
        settings = metrics_of(folder)["settings"]
        change(folder, settings=settings | {"rep_model_checkpoint": str(tmp_path / "encoder")})
    report.main([str(run), "--text"])
    listed = [line for line in capsys.readouterr().out.splitlines() if "pictures" in line]
    assert listed == [str(pictures / "epoch_0002.png")]


def test_text_explains_that_there_is_no_evaluation(run, capsys):
    with pytest.raises(SystemExit) as ending:
        report.main([str(run), "--text"])
    assert ending.value.code == 2
    assert f"make one with evaluate.py eval_checkpoint={run}" in capsys.readouterr().err
