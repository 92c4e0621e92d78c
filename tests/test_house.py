"""The house: who may import whom, no circle, and budgets of lines that may only fall."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("common", "agents", "envs", "datasets", "visual_encoders")

# A room may import itself and what is listed: rooms, or single files of rooms above it.
BASE = ["common.foundation", "common.settings"]
LEARNING_FILES = ["common.runs.folders", "common.runs.checkpoint", "common.runs.metrics"]
LEARNING_FILES += ["common.runs.identity"]
LEARNING_FILES += ["common.training.loop", "common.training.team", "common.training.diagnosis"]
BELOW_RUNS = [*BASE, "common.data", "envs", "datasets", "visual_encoders", "agents"]
MAY_IMPORT = {
    "common.foundation": [],
    "common.settings": ["common.foundation"],
    "common.data": ["common.foundation"],
    "envs": BASE,
    "datasets": [*BASE, "envs"],
    "visual_encoders": [*BASE, "envs", "datasets", *LEARNING_FILES],
    "agents": [*BASE, "common.data", "envs", "datasets", "visual_encoders"],
    "common.runs": BELOW_RUNS,
    "common.evaluation": [*BELOW_RUNS, "common.runs"],
    "common.training": [*BELOW_RUNS, "common.runs", "common.evaluation"],
    "common.paper": [*BELOW_RUNS, "common.runs", "common.evaluation"],
    "common.tools": [*ROOMS],
}
FAMILIES = ("agents.iql", "agents.ecdiffuser", "agents.ecrl")

FILE_LINES = 300
CORE = ("agents", *(f"common/{room}" for room in ["foundation", "settings", "data", "runs"]))
CORE += ("common/evaluation", "common/training")
BUDGETS = {  # lines of Python of folders with all that is in them; a budget may only fall
    CORE: 11060,
    ("agents/iql",): 750,
    ("agents/ecdiffuser",): 370,
    ("agents/ecrl",): 590,
    ("agents/networks", "agents/observations"): 1660,
    ("common/foundation", "common/settings"): 2360,
    ("common/runs", "common/evaluation", "common/training", "common/data"): 4980,
    ("common/paper", "common/tools"): 2210,
    ("envs",): 5420,
    ("envs/manipobj",): 620,
    ("envs/scene",): 860,
    ("envs/pushing",): 1010,
    ("envs/pushtetris",): 1080,
    ("envs/ogbench",): 400,
    ("datasets",): 2240,
    ("visual_encoders",): 3310,
    ("visual_encoders/dlp",): 1300,
    ("visual_encoders/vqvae",): 600,
    ("benchmarks",): 1600,
    ("tests",): 23830,
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module_name(p): p for room in ROOMS for p in sorted((ROOT / room).rglob("*.py"))}


def imported_modules(path: Path) -> set[str]:
    """The modules of ours that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in SOURCES else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & SOURCES.keys()


IMPORTS = {name: imported_modules(path) for name, path in SOURCES.items()}


def is_in(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may_know(room: str):
    allowed = [room, *MAY_IMPORT[room]]
    assert [
        f"{module} -> {other}"
        for module in SOURCES
        if is_in(module, room)
        for other in sorted(IMPORTS[module])
        if not any(is_in(other, place) for place in allowed)
    ] == []


def test_every_file_is_in_a_room_of_the_table():
    packages = {"common", *ROOMS}
    assert [
        module
        for module in SOURCES
        if module not in packages and not any(is_in(module, room) for room in MAY_IMPORT)
    ] == []


def test_no_family_of_agents_imports_another():
    for family in FAMILIES:
        others = [other for other in FAMILIES if other != family]
        for module in (module for module in SOURCES if is_in(module, family)):
            assert not [i for i in IMPORTS[module] if any(is_in(i, other) for other in others)]


def test_no_files_import_each_other_in_a_circle():
    """Also not by an import inside a function, which would only hide it."""
    tuple(graphlib.TopologicalSorter(IMPORTS).static_order())


def count_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("folders", BUDGETS, ids="+".join)
def test_folders_stay_within_their_lines(folders: tuple[str, ...]):
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert sum(map(count_lines, paths)) <= BUDGETS[folders]


def test_no_file_is_longer_than_a_reader_likes():
    assert [path for path in SOURCES.values() if count_lines(path) > FILE_LINES] == []


def test_tests_import_helpers_and_no_other_tests():
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                own = (node.module or "").startswith("tests")
                assert not own or not any(part.startswith("test_") for part in parts[:-1]), path
