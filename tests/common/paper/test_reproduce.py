"""commands/reproduce.sh: its plan at each scale, stopping and going on, a small run."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common.foundation.errors import UserError
from common.paper import experiments, reproduce
from common.paper.comparison import TABLES
from common.paper.experiments import as_overrides, read_scales
from common.paper.jobs import Job, run_all
from common.paper.plan import Plan
from common.paper.reproduce import make_plan
from common.settings.config import compose, known_keys
from common.settings.overrides import check_arguments
from tests.helpers.run_folders import add_evaluation, add_run
from tests.helpers.shells import REPOSITORY, this_python

SCALES = read_scales()
CUBES = "env_kwargs.manipobj.num_cubes"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


def plan(table: str, scale: str, tmp_path: Path, *more: str) -> Plan:
    places = [f"output_dir={tmp_path}/output", f"data_dir={tmp_path}/data"]
    return make_plan([table, scale, *places, *more])


def at(scale, script: str, name: str, *more: str):
    """The settings of a name at a scale."""
    line = as_overrides(experiments.settings(script, name))
    return compose([*line, *scale.overrides(script, name), *more])


def settings(job: Job):
    """The settings of a job with what is appended, checked as the script checks them."""
    script, name, *overrides = (Path(job.command[1]).stem, *job.command[2:])
    check_arguments(overrides, known_keys())
    return compose([*as_overrides(experiments.settings(script, name)), *overrides])


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("table", TABLES)
def test_every_job_has_settings_that_exist(table, name, tmp_path):
    made = plan(table, name, tmp_path, "seeds=0")
    # Agents of the laptop know their cubes by order; `laptop-numbers` has those for other numbers.
    assert bool(made.figures()) == ((table, name) != ("generalization", "laptop"))
    data = [job for job in made.preparations() if job.command[0] == "bash"]
    for job in (*data, *made.trainings()):
        assert settings(job).data_dir == f"{tmp_path}/data"
    for figure in made.figures():
        at(made.scale, "eval", figure)


def test_the_laptop_s_main_table(tmp_path):
    made = plan("main", "laptop", tmp_path)
    (collecting,) = map(settings, made.preparations())
    assert (collecting.world.num_cubes, collecting.world.mode) == (2, "data_collection")
    trainings = list(map(settings, made.trainings()))
    assert [t.seed for t in trainings] == sorted([0, 1, 2] * (len(trainings) // 3))
    alike = {
        (
            t.world,
            t.train_dataset_name,
            t.steps,
            t.batch_size,
            t.gamma,
            t.threads,
            getattr(t.agent_settings, "alpha", 10.0),  # EC-Diffuser has none
        )
        for t in trainings
    }
    assert len(alike) == 1 and trainings[0].world.num_cubes == 2
    method = trainings[0].agent_settings
    assert (method.value_competence_radius, method.n_diffusion_samples) == (-17, 64)


def test_agents_for_other_numbers_of_cubes_know_them_by_drawn_identities(tmp_path):
    """Those for one number know cubes by their order; all else is alike."""
    shared = "agents=ec-sgiql", "seeds=0"
    (known,) = map(settings, plan("main", "laptop", tmp_path, *shared).trainings())
    made = plan("generalization", "laptop-numbers", tmp_path, *shared)
    (drawn,) = map(settings, made.trainings())
    assert known.obs == "ec_state"
    assert known.raw | {"obs": "ec_state_gen"} == drawn.raw


def test_an_experiment_learns_with_settings_of_its_own(tmp_path):
    shared = ("main", "laptop", tmp_path, "agents=ec-sgiql", "seeds=0")
    learning_rates = {
        experiment: settings(plan(*shared, f"experiments={experiment}").trainings()[0]).lr
        for experiment in ("ppp-state", "scene-state", "tetris-state")
    }
    assert learning_rates == {"ppp-state": 2e-3, "scene-state": 1e-3, "tetris-state": 1e-3}


def test_numbers_of_objects_and_choices_of_subgoals_survive_the_laptop(tmp_path):
    def at_scale(variant: str, scale: str = "laptop"):
        return at(SCALES[scale], "eval", f"ppp-state/ec-sgiql/{variant}")

    for variant, cubes in (("1-cube", 1), ("3-cubes", 3)):
        assert at_scale(variant, "laptop-numbers").world.num_cubes == cubes
    assert at_scale("max-value").world.num_cubes == 2
    assert at_scale("random-sample").agent_settings.n_diffusion_samples == 1
    assert at_scale("max-value").agent_settings.n_diffusion_samples == 64
    assert at_scale("auto-radius").agent_settings.value_competence_radius == "auto"
    assert at_scale("no-subgoals").agent_settings.disable_subgoal


def test_figures_of_each_table(tmp_path):
    def figures(table: str) -> list[str]:
        return plan(table, "paper", tmp_path, "experiments=ppp-state").figures()

    agents = ["ec-sgiql", "ec-sgiql-awr", "ec-iql", "ec-iql/random-policy", "hiql", "iql"]
    assert [f for f in figures("main") if "diffuser" not in f] == [f"ppp-state/{a}" for a in agents]
    ablations = ["", "/auto-radius", "/max-value", "/random-sample", "/no-subgoals"]
    assert figures("ablations") == [f"ppp-state/ec-sgiql{v}" for v in ablations]
    subgoals = [f"ppp-state/{a}/changed-entities" for a in ("ec-sgiql", "ec-sgiql-awr", "hiql")]
    assert figures("subgoals") == subgoals
    numbers = ["", "/1-cube", *(f"/{n}-cubes" for n in (2, 4, 5, 6))]
    expected = [f"ppp-state/{a}{n}" for a in ("ec-sgiql", "ec-iql") for n in numbers]
    assert figures("generalization") == expected


def test_the_paper_s_images_are_downloaded_and_its_states_collected(tmp_path):
    made = plan("main", "paper", tmp_path)
    image = compose(["train_dataset_name=ppp-cube-noisy-v0-mv", f"{CUBES}=3"])
    ((title, command),) = made._data(image)
    assert title == "download ppp-cube" and command[-2:] == ["--folder", f"{tmp_path}/data"]
    titles = [job.name for job in made.preparations()]
    assert {"collect ppp-state", "collect stack-state"} <= set(titles)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ppp-cube-noisy-v0-mv.npz").touch()
    assert not list(made._data(image))


@pytest.fixture
def trained(tmp_path) -> Plan:
    """A plan of two seeds, the first of which is trained, evaluated once, then trained again."""
    made = plan("ablations", "smoke", tmp_path, "seeds=0,1")
    output = Path(made.scale.output_dir)
    run = add_run(output, "ppp-state/ec-sgiql", 0, [0.5])
    add_evaluation(output, "ppp-state/ec-sgiql", 0, [1])
    evaluated = next(output.glob("eval/*/metrics.json")).stat().st_mtime
    (run / "last.safetensors").touch()
    os.utime(run / "last.safetensors", (evaluated - 5, evaluated - 5))
    return made


def test_finished_parts_are_skipped(trained):
    assert [job.name for job in trained.trainings()] == ["train ppp-state/ec-sgiql seed 1"]
    first = dataclasses.replace(trained, scale=dataclasses.replace(trained.scale, seeds=[0]))
    names = [job.name for job in first.evaluations()]
    assert names == ["eval ppp-state/ec-sgiql/max-value last seed 0"]
    (last,) = Path(trained.scale.output_dir).glob("train/*/last.safetensors")
    os.utime(last, None)
    later = time.time() + 60
    os.utime(last, (later, later))  # it was trained further
    assert len(first.evaluations()) == 2
    longer = dataclasses.replace(first.scale, changes={"train": {"steps": 11}})
    assert len(dataclasses.replace(first, scale=longer).trainings()) == 1


def test_the_best_checkpoint_is_evaluated_for_the_main_table(trained, tmp_path):
    (last,) = Path(trained.scale.output_dir).glob("train/*/last.safetensors")
    last.with_name("best.safetensors").touch()
    made = plan("main", "smoke", tmp_path)
    (job,) = made.evaluations()
    assert job.name == "eval ppp-state/ec-sgiql best seed 0"
    assert settings(job).eval_checkpoint == str(last.with_name("best.safetensors"))


def test_complete_data_are_not_collected_again(tmp_path):
    made = plan("main", "smoke", tmp_path)
    header = tmp_path / "data" / "ppp-cube-noisy-v0" / "header.json"
    header.parent.mkdir(parents=True)
    for complete in (False, True):
        header.write_text(json.dumps({"complete": complete}))
        assert bool(made.preparations()) == (not complete)


def test_a_cluster_gets_all_seeds_of_a_line_in_one_job(tmp_path):
    more = ["launcher=slurm", "hydra.launcher.partition=gpu", "experiments=ppp-state"]
    made = plan("main", "paper", tmp_path, *more)
    jobs = made.trainings()
    assert len(jobs) == len(made.trained())
    end = ["seed=0,1,2,3", "-m", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"]
    assert all(list(job.command[-4:]) == end for job in jobs)
    check_arguments(jobs[0].command[3:], known_keys())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"give TABLE \[SCALE\] .*tables: main, ablations, .*scales: paper, laptop, .*smoke"),
        (["mian"], r"unknown table mian; known: main, ablations, .*; did you mean main\?"),
        (["main", "lap"], "unknown scale lap; .*did you mean laptop"),
        (["main", "seed=1"], "unknown key seed; .*did you mean seeds"),
        (["main", "seeds=a"], "seeds=a is not a number, or several with commas"),
        (["main", "download=no"], "unknown download no; known: true, false"),
        (["main", "jobs=0"], "jobs=0 must be at least 1"),
        (["main", "hydra.launcher.partition=gpu"], "is for a cluster; add launcher=slurm"),
        (["main", "launcher=pbs"], "unknown launcher pbs; known: local, slurm"),
    ],
)
def test_mistakes_are_explained(arguments, message):
    with pytest.raises(UserError, match=message):
        make_plan(arguments)


def test_a_table_without_lines_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"table subgoals has no figure in .* scene-state and ec-iql"
    ):
        reproduce.reproduce(
            plan("subgoals", "paper", tmp_path, "experiments=scene-state", "agents=ec-iql")
        )


def job(tmp_path: Path, name: str, script: str) -> Job:
    return Job(name, [sys.executable, "-c", script], tmp_path / "logs" / f"{name}.log")


def test_failures_leave_the_other_jobs_alone_and_are_told_at_the_end(tmp_path, capsys):
    slow = "import time, pathlib; time.sleep(0.6); pathlib.Path('slow').touch()"
    jobs = [
        job(tmp_path, "bad", "print('what went wrong'); raise SystemExit(2)"),
        job(tmp_path, "slow", slow.replace("'slow'", f"'{tmp_path}/slow'")),
        job(tmp_path, "worse", "raise SystemExit('it went wrong again')"),
        job(tmp_path, "last", f"import pathlib; pathlib.Path('{tmp_path}/last').touch()"),
    ]
    named = r"bad, worse failed, see .*bad\.log, .*worse\.log; the same command continues"
    with pytest.raises(UserError, match=named):
        run_all(jobs, at_once=2)
    assert (tmp_path / "slow").exists() and (tmp_path / "last").exists()
    _, told = capsys.readouterr().out.split("bad: failed, at last it said\n")
    assert re.match(r"what went wrong\n.* worse: failed, at last it said\nit went .* again\n", told)


def test_a_signal_is_passed_on_once_and_the_rest_is_left(tmp_path):
    script = """
import pathlib, signal, sys, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
pathlib.Path(sys.argv[1], 'ready').touch()
while not told: time.sleep(0.01)
time.sleep(0.5)
pathlib.Path(sys.argv[1], f'saved {len(told)}').touch()
"""
    saving = Job("saving", [sys.executable, "-c", script, str(tmp_path)], tmp_path / "log")

    def stop_when_ready():
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop_when_ready)
    thread.start()
    with pytest.raises(SystemExit) as end:
        run_all([saving, job(tmp_path, "never", "raise SystemExit(1)")], at_once=1)
    thread.join()
    assert end.value.code == 128 + signal.SIGTERM
    assert (tmp_path / "saved 1").exists() and not (tmp_path / "logs").exists()


def test_every_table_at_smoke_scale(tmp_path, capsys, monkeypatch):
    """One through the shell from nothing; the others go on from there, in this process."""
    environment = os.environ | {"VENV": str(this_python(tmp_path))}
    monkeypatch.setenv("VENV", environment["VENV"])
    places = [f"output_dir={tmp_path}/output", f"data_dir={tmp_path}/data"]
    command = ["bash", "commands/reproduce.sh", "main", "smoke", *places]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for table in list(TABLES)[1:]:
        reproduce.reproduce(plan(table, "smoke", tmp_path))
    assert "training: nothing to do" in capsys.readouterr().out
    made = {path.name for path in (tmp_path / "output" / "tables").glob("*.md")}
    assert made == {f"{table}.md" for table in TABLES}
    runs = (tmp_path / "output" / "tables" / "runs.csv").read_text().splitlines()
    assert len(runs) == 1 + 5  # last, best, max-value, changed-entities, 1-cube
    assert ",38," in runs[1]  # transitions of two episodes of 20 rows
