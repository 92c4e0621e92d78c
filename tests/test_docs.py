"""The documents: their length, links, pictures, and the commands and settings that they name."""

import itertools
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from common.paper.reproduce import KEYS
from common.settings.config import compose, known_keys
from common.settings.overrides import check_arguments

ROOT = Path(__file__).resolve().parents[1]
GUIDES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
DOCUMENTS = [*GUIDES, ROOT / "CHANGELOG.md", *sorted((ROOT / "results").rglob("*.md"))]
MADE = ("output/", "results/mine", "results/agents/MINE", "datasets/data", "visual_encoders/chkpts")
OURS = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
SCRIPTS = ("train.py", "evaluate.py", "collect.py")
LISTS = ("collect", "train_encoder", "train", "eval")  # scripts of commands/ that list their names
OTHERS = {"VENV", "PYTHON", "OMP_WAIT_POLICY", "launcher"} | set(
    KEYS
)  # keys that config.yaml does not have
LONGEST = 150  # lines of the README

documents = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
guides = pytest.mark.parametrize("path", GUIDES, ids=lambda p: p.name)


def blocks(path: Path) -> list[str]:
    """The contents of the fenced blocks of a document."""
    return re.findall(r"^```\w*\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```\w*\n.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def spans(path: Path) -> list[str]:
    """Texts between backquotes, on one line each."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(path))]


def commands(path: Path) -> Iterator[list[str]]:
    """Words of each command line, those of fenced blocks and of code spans."""
    lines = [line for b in blocks(path) for line in b.replace("\\\n", " ").splitlines()]
    for line in [*lines, *spans(path)]:
        if re.match(r"(\w+=\S+ )?(python|bash|torchrun|accelerate) ", line):
            yield shlex.split(line, comments=True)


def anchors(path: Path) -> set[str]:
    """The fragments by which the headings of a document can be linked."""
    titles = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= LONGEST


@documents
def test_links_and_pictures_exist(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        file, _, fragment = target.partition("#")
        if "://" in target:
            continue
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        assert not fragment or fragment in anchors(linked), target


@guides
def test_named_modules_and_scripts_exist(path: Path) -> None:
    for words in commands(path):
        for flag, module in itertools.pairwise(words):
            if flag != "-m" or module.split(".")[0] not in OURS:
                continue
            place = ROOT.joinpath(*module.split("."))
            assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module
        for word in words:
            if word.endswith((".sh", ".py")):
                assert (ROOT / word).exists(), word


@guides
def test_named_files_exist(path: Path) -> None:
    for span in spans(path):
        word = span.split()[0].rstrip("/")
        if "/" not in word or word.startswith(MADE) or word.split("/")[0] not in OURS:
            continue
        if not re.search(r"[A-Z]{4}|[{}$=]", word):  # such as envs/NAME/world.py
            assert list(ROOT.glob(word)), span


@guides
def test_commands_set_settings_that_exist(path: Path) -> None:
    for words in commands(path):
        text = " ".join(words)
        if not any(word in SCRIPTS for word in words) and "visual_encoders.train " not in text:
            continue
        given = [word for word in words if re.match(r"(\w+\.)*\w+=", word)]
        sweep = ["-m"] if " -m " in text else []
        check_arguments([*sweep, *given], known_keys())
        if not sweep and "..." not in words:
            compose(given)


@guides
def test_named_settings_exist(path: Path) -> None:
    known = {key.rsplit(".", 1)[-1] for key in known_keys()} | OTHERS
    for key in re.findall(r"(?:^|\s)([A-Za-z_.]+)=(?=\S|$)", "\n".join(spans(path)), re.MULTILINE):
        assert key.rsplit(".", 1)[-1] in known or key.startswith("hydra"), key


def test_named_lines_of_the_experiments_exist() -> None:
    names = {}
    for script in LISTS:
        done = subprocess.run(
            ["bash", f"commands/{script}.sh"],
            cwd=ROOT,
            env=os.environ | {"VENV": "none"},
            capture_output=True,
            text=True,
        )
        names[f"commands/{script}.sh"] = set(done.stdout.split())
    named = [words for path in GUIDES for words in commands(path) if len(words) > 2]
    named = [words for words in named if words[1] in names and "=" not in words[2]]
    assert len(named) > len(LISTS)
    for words in named:
        assert words[2] in names[words[1]], " ".join(words)


def test_ranges_of_pyproject_contain_the_tested_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    ranges = {r.name: r.specifier for r in map(Requirement, lines)}
    files = ("requirements.txt", "tests/requirements.txt")
    pinned = [line for file in files for line in (ROOT / file).read_text().splitlines() if line]
    exact = dict(line.split("==") for line in pinned if not line.startswith("#"))
    assert ranges.keys() == exact.keys()
    for name, version in exact.items():
        assert version in ranges[name], name
