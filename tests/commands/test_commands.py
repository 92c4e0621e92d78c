"""commands/*.sh: what they run, with stubs in the place of the programs."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from common.paper import experiments
from common.runs.folders import run_path, train_name
from common.settings.config import Config, compose
from envs.make import make_world
from visual_encoders.images import COLUMN
from visual_encoders.settings import ENCODER_RUNS

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((REPOSITORY / "commands").glob("*.sh"))
REQUIREMENTS = {
    "quickstart.sh": ["requirements.txt"],
    "quickstart_images.sh": ["requirements.txt"],
    "test.sh": ["requirements.txt", "tests/requirements.txt"],
}
WORLDS = ("cube", "scene", "tetris-1", "tetris-2")
# Named commands are put together by the real Python, and run by this one.
STUB = f"""#!/usr/bin/env bash
export PYTHONPATH={REPOSITORY}
[ "${{2:-}}" != common.paper.experiments ] || exec {sys.executable} "$@"
IFS=$'\\t'
echo "${{0##*/}}"$'\\t'"$*" >> "$CALLS"
"""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """The settings of whoever runs the tests must not reach the scripts."""
    for name in ("VENV", "PYTHON"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of the commands, with a virtual environment that only notes what is asked of it."""
    root = tmp_path / "my project"
    shutil.copytree(REPOSITORY / "commands", root / "commands")
    binaries = root / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for program in ("python", "ruff"):
        (binaries / program).write_text(STUB)
        (binaries / program).chmod(0o755)
    (root / "tests").mkdir()
    for files in REQUIREMENTS.values():
        for name in files:
            shutil.copy(REPOSITORY / name, root / name)
        wanted = "".join((root / name).read_text() for name in files).rstrip("\n")
        stamp = "_".join(files).replace("/", "_")
        (root / ".venv" / f"installed-{stamp}").write_text(wanted)
    return root


def calls(root: Path, script: str, *arguments: str, **variables: str) -> list[list[str]]:
    """Run a command to its end: what it asked of the stubs, program and arguments."""
    record = root / "calls"
    record.unlink(missing_ok=True)
    result = subprocess.run(
        ["bash", str(root / "commands" / script), *arguments],
        env=os.environ | {"CALLS": str(record)} | variables,
        cwd=root.parent,  # wherever it is called from
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return [line.split("\t") for line in record.read_text().splitlines()]


def settings(root: Path, *arguments: str) -> dict[str, list[Config]]:
    """The settings of each script that the quickstart runs, checked as the script checks them."""
    found: dict[str, list[Config]] = {}
    for program, script, *overrides in calls(root, "quickstart.sh", *arguments):
        assert program == "python"
        if script.endswith(".py"):
            found.setdefault(script, []).append(compose(overrides))
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_executable_and_parse(script):
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("world", WORLDS)
def test_the_quickstart_runs_scripts_that_exist_with_settings_that_they_accept(project, world):
    found = settings(project, world)
    assert list(found) == ["collect.py", "train.py", "evaluate.py"]
    assert [len(configs) for configs in found.values()] == [1, 1, 3]
    assert all((REPOSITORY / script).exists() for script in found)


def test_the_quickstart_runs_modules_that_exist(project):
    modules = [call[2] for call in calls(project, "quickstart.sh") if call[1] == "-m"]
    assert modules == ["common.runs.curves", "common.tools.report"]
    assert all((REPOSITORY / f"{m.replace('.', '/')}.py").exists() for m in modules)


@pytest.mark.parametrize("world", WORLDS)
def test_the_quickstart_trains_on_what_it_collects_and_evaluates_what_it_trains(project, world):
    found = settings(project, world)
    (collecting,), (training,) = found["collect.py"], found["train.py"]
    assert "data_collection" in collecting.world.mode
    assert training.world.mode == "task"
    assert collecting.dataset_name == training.train_dataset_name
    assert collecting.task == training.task
    assert replace(collecting.world, mode="task") == training.world
    assert collecting.data_dir == training.data_dir
    run = f"{training.output_dir}/train/{training.run_name or train_name(training)}"
    subgoals, plain, random = found["evaluate.py"]
    assert {config.eval_checkpoint for config in found["evaluate.py"]} == {run}
    assert not subgoals.agent_settings.disable_subgoal
    assert plain.agent_settings.disable_subgoal
    assert random.random_policy
    assert len({config.eval_variant_name for config in found["evaluate.py"]}) == 3
    folders = [call[3] for call in calls(project, "quickstart.sh", world) if call[1] == "-m"]
    assert folders == [run, run]


@pytest.mark.parametrize("world", WORLDS)
def test_overrides_of_the_quickstart_follow_its_world(project, world):
    (training,) = settings(project, world, "steps=123", "seed=4")["train.py"]
    assert (training.steps, training.seed) == (123, 4)


def test_a_world_without_quickstart_is_refused(project):
    command = ["bash", str(project / "commands" / "quickstart.sh"), "tetris"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "there is cube, scene, tetris-1, tetris-2" in result.stderr


@pytest.fixture
def from_images(project) -> dict[str, list[list[str]]]:
    """Arguments of each program of the quickstart from images, in the order of first calls."""
    found: dict[str, list[list[str]]] = {}
    for _, *words in calls(project, "quickstart_images.sh"):
        own = words[1:] if words[0] == "-m" else words
        found.setdefault(own[0], []).append(own[1:])
    return found


def test_the_quickstart_from_images_runs_its_phases_in_order(from_images):
    programs = ["collect.py", "visual_encoders.train", "visual_encoders.encode", "train.py"]
    assert list(from_images) == [
        *programs,
        "common.runs.curves",
        "evaluate.py",
        "common.tools.report",
    ]
    assert [len(found) for found in from_images.values()] == [1, 1, 1, 1, 1, 3, 1]
    for program in from_images:
        path = program if program.endswith(".py") else f"{program.replace('.', '/')}.py"
        assert (REPOSITORY / path).exists()


def test_each_phase_of_the_quickstart_from_images_takes_what_the_one_before_made(from_images):
    collecting, encoder = (
        compose(from_images[program][0]) for program in ("collect.py", "visual_encoders.train")
    )
    training = compose(from_images["train.py"][0])
    ((name, *sight),) = from_images["visual_encoders.encode"]
    names = {collecting.dataset_name, encoder.train_dataset_name, name, training.train_dataset_name}
    assert len(names) == 1 and collecting.obs == "rgb"
    world = make_world(training)
    assert world.compatible(make_world(collecting).describe()) is None
    assert world.dataset_columns(pixels=True)[COLUMN][0] == (*[encoder.encoder.image_size] * 2, 3)
    for config in (compose(sight), training):
        assert config.obs == encoder.encoder.kind
        assert Path(config.rep_model_checkpoint) == run_path(encoder, ENCODER_RUNS)
    run = f"{training.output_dir}/train/{training.run_name}"
    subgoals, plain, chance = (compose(overrides) for overrides in from_images["evaluate.py"])
    assert chance.random_policy and not subgoals.random_policy and not plain.random_policy
    assert subgoals.eval_checkpoint == plain.eval_checkpoint == run
    assert plain.agent_settings.disable_subgoal and not subgoals.agent_settings.disable_subgoal
    assert subgoals.save_video and subgoals.num_video_episodes
    assert from_images["common.runs.curves"] == [[run]]
    assert from_images["common.tools.report"] == [[run, "--text"]]


def test_scripts_keep_their_line_ends_on_windows(tmp_path: Path):
    """Where git turns the ends of lines into those of Windows, bash would refuse every one."""
    assert not any(b"\r" in script.read_bytes() for script in SCRIPTS)
    files = [tmp_path / name for name in ("train.sh", "run", "notes.txt")]
    for file in files:
        file.write_bytes(b"#!/usr/bin/env bash\necho\n")
    shutil.copy(REPOSITORY / ".gitattributes", tmp_path)

    def git(*arguments: str) -> None:
        user = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.autocrlf=true"]
        command = ["git", *user, "-C", str(tmp_path), *arguments]
        subprocess.run(command, check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "scripts")
    for file in files:
        file.unlink()
    git("checkout", ".")
    assert not any(b"\r" in file.read_bytes() for file in files)


@pytest.mark.parametrize("script", ["quickstart.sh", "quickstart_images.sh"])
def test_overrides_of_a_quickstart_reach_training_alone(project, script):
    found = calls(project, script, "steps=123", "seed=4")
    ends = {call[1]: call[-2:] == ["steps=123", "seed=4"] for call in found}
    assert [program for program, reached in ends.items() if reached] == ["train.py"]


def test_the_quickstart_evaluates_again_only_what_is_older_than_the_agent(project):
    (training,) = settings(project)["train.py"]
    last = project / training.output_dir / "train" / training.run_name / "last.safetensors"
    last.parent.mkdir(parents=True)
    last.touch()
    for moment, variant in ((-10, "no-subgoals"), (10, "subgoals"), (10, "random")):
        folder = f"sgiql_manipobj-v0_0_{variant}_20250101-000000"
        metrics = project / training.output_dir / "eval" / folder / "metrics.json"
        metrics.parent.mkdir(parents=True)
        metrics.touch()
        when = last.stat().st_mtime + moment
        os.utime(metrics, (when, when))
    (again,) = settings(project)["evaluate.py"]
    assert again.eval_variant_name == "no-subgoals"


def test_the_quickstart_ends_where_a_phase_fails(project):
    stub = project / ".venv" / "bin" / "python"
    stub.write_text(f'{STUB}[ "$1" != train.py ] || exit 130\n')
    record = project / "calls"
    command = ["bash", str(project / "commands" / "quickstart.sh")]
    environment = os.environ | {"CALLS": str(record)}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 130
    assert record.read_text().splitlines()[-1].split("\t")[1] == "train.py"


def test_setup_installs_once_for_each_list_of_requirements(project):
    (project / "requirements.txt").write_text("torch==9.9\n")
    first, *_ = calls(project, "quickstart.sh")
    assert first[1:4] == ["-m", "pip", "install"]
    assert first[-2:] == ["-r", "requirements.txt"]
    assert "pip" not in calls(project, "quickstart.sh")[0]
    assert "pip" in calls(project, "test.sh")[0]
    for script in REQUIREMENTS:
        assert "pip" not in calls(project, script)[0]


@pytest.mark.parametrize("absolute", [True, False])
def test_the_environment_may_lie_elsewhere(project, absolute):
    (project / ".venv").rename(project / "elsewhere")
    place = str(project / "elsewhere") if absolute else "elsewhere"
    assert calls(project, "quickstart.sh", VENV=place)[0][1] == "collect.py"


def test_the_python_at_hand_can_be_taken_as_it_is(project):
    stubs = (project / ".venv").rename(project / "conda") / "bin"
    (project / "requirements.txt").write_text("torch==9.9\n")
    path = f"{stubs}{os.pathsep}{os.environ['PATH']}"
    first, *_ = calls(project, "quickstart.sh", VENV="none", PATH=path)
    assert first[:2] == ["python", "collect.py"]
    assert not (project / ".venv").exists() and not (project / "none").exists()


def test_the_test_command_checks_style_and_runs_the_tests(project):
    found = calls(project, "test.sh", "-k", "buffer")
    assert [call[0] for call in found] == ["ruff", "ruff", "python"]
    assert found[-1][1:] == ["-m", "pytest", "-n", "2", "-k", "buffer"]


CELLS = [
    ("collect.sh", "ppp-state"),
    ("train_encoder.sh", "ppp-image/dlp"),
    ("train.sh", "ppp-state/ec-iql"),
    ("eval.sh", "ppp-state/iql"),
]


@pytest.mark.parametrize(("script", "name"), CELLS)
def test_a_named_line_runs_with_the_overrides_at_its_end(project, script, name):
    (line,) = (call[1:] for call in calls(project, script, name))
    ((*longer, first, second),) = (c[1:] for c in calls(project, script, name, "seed=1", "a='b c'"))
    assert (longer, first, second) == (line, "seed=1", "a='b c'")
    assert any("${seed}" in part for part in line) == (script != "collect.sh")  # not the shell's


@pytest.mark.parametrize(("script", "name"), CELLS)
def test_names_are_listed_and_others_refused(project, script, name):
    command = ["bash", str(project / "commands" / script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == experiments.names(script.removesuffix(".sh"))
    assert name in done.stdout.splitlines()
    done = subprocess.run([*command, f"{name}s"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: there is no {name}s in ") and not done.stdout


def test_a_named_command_is_printed_so_that_it_can_be_copied(project):
    command = ["bash", str(project / "commands" / "train.sh"), "ppp-state/ec-iql", "a=b c"]
    environment = os.environ | {"CALLS": str(project / "calls")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    (call,) = (project / "calls").read_text().splitlines()
    assert shlex.split(done.stdout) == call.split("\t")


@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=submitit_slurm"]])
def test_a_sweep_trains_every_agent_of_a_table(project, launcher):
    names = ["ec-sgiql", "ec-sgiql-awr", "ec-iql", "ec-diffuser", "hiql", "iql"]
    found = calls(project, "sweep.sh", "ppp-state", "seed=0,1", *launcher)
    ends = [["seed=0,1", *launcher, "-m", f"hydra.sweep.dir=${{output_dir}}/multirun/ppp-state/{n}"]
            for n in names]  # fmt: skip
    assert sorted(call[-len(ends[0]) :] for call in found) == sorted(ends)
    lines = [calls(project, "train.sh", f"ppp-state/{name}")[0] for name in names]
    assert sorted(call[: -len(ends[0])] for call in found) == sorted(lines)


@pytest.mark.parametrize("launcher", [(), ("hydra/launcher=submitit_slurm",)])
def test_a_sweep_goes_on_after_a_failure_and_ends_with_a_signal(project, launcher):
    stub = project / ".venv" / "bin" / "python"
    command = ["bash", str(project / "commands" / "sweep.sh"), "ppp-state", *launcher]
    environment = os.environ | {"CALLS": str(project / "calls")}
    for code, ended, runs in (2, 2, 6), (143, 143, 6 if launcher else 4):
        stub.write_text(f'{STUB}[[ "$*" != *agent=hiql* ]] || exit {code}\n')
        (project / "calls").unlink(missing_ok=True)
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == ended
        assert len((project / "calls").read_text().splitlines()) == runs
        assert done.stderr.count("failed: ppp-state/hiql\n") == (code == 2)


def test_sweeps_list_the_tables(project):
    script = str(project / "commands" / "sweep.sh")
    tables = subprocess.run(["bash", script], capture_output=True, text=True, check=True).stdout
    assert tables.split()[:2] == ["ppp-state", "stack-state"]
    assert len(set(tables.split())) == len(tables.split())
    unknown = subprocess.run(["bash", script, "ppp"], capture_output=True, text=True)
    assert unknown.returncode == 2 and "there is no table ppp" in unknown.stderr


def test_ci_runs_the_test_command():
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"commands/test\.sh", script.read_text())
