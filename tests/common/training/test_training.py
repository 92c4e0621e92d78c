"""Training: repeatable, stoppable at any moment without a trace, and clear about what is wrong."""

import json
import os
import re
import shlex
import shutil
import signal
from pathlib import Path

import h5py
import pytest
import torch

import train
from agents.iql.sgiql import SGIQL
from agents.observations.kinds import make_observation
from common.data.normaliser import Normaliser
from common.evaluation import evaluate as evaluation_run
from common.evaluation.evaluate import EvaluationStopped, evaluate
from common.foundation.errors import UserError
from common.runs import checkpoint
from common.runs.agents import load_agent
from common.runs.metrics import MetricsLog, Tracker
from common.settings.config import compose
from common.training import offline as trainer
from datasets.store import episode_path
from tests.helpers.crashes import fail_at
from tests.helpers.fake_agents import PointAgent
from tests.helpers.point_world import point_world
from tests.helpers.training import (
    RHYTHM,
    assert_same_run,
    folder_of,
    interrupt,
    logged,
    result,
    signal_at,
    start,
    steps_logged,
    wait_for,
)


@pytest.fixture(scope="module")
def reference(tiny_data, tmp_path_factory):
    """Makes the folder of a run that nothing interrupts, once for each set of overrides."""
    from tests.conftest import TINY

    made: dict[tuple[str, ...], Path] = {}

    def make(*overrides: str) -> Path:
        if overrides not in made:
            output = tmp_path_factory.mktemp("reference")
            base = [*TINY, f"data_dir={tiny_data}", f"output_dir={output}"]
            config = compose([*base, *overrides])
            train.run(config)
            made[overrides] = folder_of(config)
        return made[overrides]

    return make


# --- repeatable -----------------------------------------------------------------------------------


def test_the_same_settings_train_the_same_agent(tiny_config, reference):
    config = tiny_config(*RHYTHM)
    train.run(config)
    assert_same_run(folder_of(config), reference(*RHYTHM))
    folder = folder_of(config)
    assert steps_logged(folder) == steps_logged(folder, "timing") == [4, 8, 12, 16, 20]
    assert steps_logged(folder, "eval") == [9, 18, 20]
    tensors, meta = checkpoint.load(folder / "last.safetensors")
    assert meta["step"] == 20
    kinds = {name.split("/")[0] for name in tensors}
    assert kinds == {"agent", "normaliser", "trainer"}
    assert "agent/value/adam/exp_avg" in tensors


def test_another_seed_trains_another_agent(tiny_config, reference):
    config = tiny_config(*RHYTHM, "seed=1")
    train.run(config)
    assert logged(folder_of(config)) != logged(reference(*RHYTHM))


@pytest.mark.parametrize(
    ("overrides", "column"),
    [
        (["agent=iql"], None),
        (["agent=iql", "obs=state"], None),
        (["agent=hiql", "obs=state"], "subgoal/advantage"),
        (["agent=hiql"], "subgoal/advantage"),
        (["sgiql.subgoal_policy_type=standard"], "subgoal/advantage"),
        (["obs=state"], "subgoal/loss"),
    ],
)
def test_every_agent_trains_on_sets_and_flat_states(overrides, column, tiny_config):
    config = tiny_config(*RHYTHM, "steps=4", "arch_mlp.h_dim=16", *overrides)
    train.run(config)
    (row,) = logged(folder_of(config))
    assert "value/loss" in row
    assert column is None or column in row
    assert any(name.startswith("subgoal/") for name in row) == (column is not None)


def test_counting_subgoals_is_refused_before_training_begins(tiny_config):
    config = tiny_config(*RHYTHM, "agent=iql", "subgoal_factor_eval=true")
    with pytest.raises(UserError, match="needs an agent that pursues subgoals"):
        train.run(config)
    assert not (folder_of(config) / "train.csv").exists()


@pytest.mark.parametrize("update", [1, 4, 5, 6, 7, 9, 10, 20])
def test_a_crash_in_any_update_leaves_no_trace(update, tiny_config, reference):
    config = tiny_config(*RHYTHM)
    interrupt(config, lambda patch: fail_at(patch, SGIQL, "update", update))
    train.run(config)
    assert_same_run(folder_of(config), reference(*RHYTHM))


POINTS = {
    "before the row is written": (MetricsLog, "write", 3, False),
    "after the row is written": (Tracker, "log", 2, False),
    "before an evaluation": (evaluation_run, "evaluate", 2, False),
    "after an evaluation, before its row": (evaluation_run, "evaluate", 2, True),
    "after the best checkpoint": (trainer, "save_checkpoint", 2, True),
    "before a checkpoint": (trainer, "save_checkpoint", 3, False),
    "after a checkpoint": (trainer, "save_checkpoint", 3, True),
    "in the last evaluation": (evaluation_run, "evaluate", 3, False),
    "while a checkpoint takes its place": (os, "replace", 5, False),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_between_updates_leaves_no_trace(point, tiny_config, reference):
    owner, name, call, after = POINTS[point]
    config = tiny_config(*RHYTHM)
    interrupt(config, lambda patch: fail_at(patch, owner, name, call, after=after))
    train.run(config)
    assert_same_run(folder_of(config), reference(*RHYTHM))


def test_many_crashes_in_a_row_leave_no_trace(tiny_config, reference):
    config = tiny_config(*RHYTHM, "checkpoint_freq=2")
    for _ in range(5):
        interrupt(config, lambda patch: fail_at(patch, SGIQL, "update", 4))
    train.run(config)
    assert_same_run(folder_of(config), reference(*RHYTHM))


def test_dropout_goes_on_as_it_would_have(tiny_config, reference):
    overrides = (*RHYTHM, "arch_eit.dropout=0.3")
    config = tiny_config(*overrides)
    interrupt(config, lambda patch: fail_at(patch, SGIQL, "update", 11))
    torch.rand(3)  # whatever else drew from torch's own generator
    train.run(config)
    assert_same_run(folder_of(config), reference(*overrides))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_same_command_continues(number, tiny_config, reference, capsys):
    config = tiny_config(*RHYTHM)
    folder = folder_of(config)
    with pytest.MonkeyPatch.context() as patch:
        signal_at(patch, SGIQL, "update", 10, number)
        with pytest.raises(SystemExit) as ending:
            train.run(config)
    assert ending.value.code == 128 + number
    assert f"stopped; the same command continues: {folder}\n" in capsys.readouterr().out
    assert checkpoint.load(folder / "last.safetensors")[1]["step"] == 10
    train.run(config)
    assert f"continuing {folder} at update 10\n" in capsys.readouterr().out
    assert_same_run(folder, reference(*RHYTHM))


@pytest.mark.parametrize(("call", "step"), [(1, 9), (2, 18), (3, 20)])
def test_a_signal_breaks_off_an_evaluation_which_is_then_done_again(
    call, step, tiny_config, reference
):
    overrides = (*RHYTHM, "arch_eit.dropout=0.3")
    config = tiny_config(*overrides)
    folder = folder_of(config)
    with pytest.MonkeyPatch.context() as patch:
        signal_at(patch, evaluation_run, "evaluate", call, signal.SIGINT)
        with pytest.raises(SystemExit):
            train.run(config)
    assert checkpoint.load(folder / "last.safetensors")[1]["step"] == step
    # Once more a crash, after that evaluation's row reached the disk.
    interrupt(config, lambda patch: fail_at(patch, Tracker, "log", 1))
    assert steps_logged(folder, "eval")[-1] == step
    train.run(config)
    assert_same_run(folder, reference(*overrides))


def test_a_second_signal_interrupts_at_once(tiny_config):
    config = tiny_config(*RHYTHM)
    before = signal.getsignal(signal.SIGINT)

    def impatient(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SGIQL, "update", impatient)
        with pytest.raises(KeyboardInterrupt):
            train.run(config)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_evaluation_can_be_broken_off():
    world = point_world(12)
    observation = make_observation("ec_state_gen", world)
    width = observation.shape[-1:]
    parts = PointAgent(observation.shape), world, observation
    asked = []

    def stopped() -> bool:
        asked.append(True)
        return len(asked) > 3

    with pytest.raises(EvaluationStopped):
        evaluate(
            *parts,
            Normaliser(torch.zeros(width), torch.ones(width)),
            episodes=2,
            seed=0,
            num_envs=2,
            workers=1,
            stopped=stopped,
        )
    assert len(asked) == 4


# --- real processes -------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", ["never", "always"])
def test_a_killed_process_leaves_no_trace(parallel, tiny_overrides, monkeypatch, reference):
    """Updated by one process or by two, it ends as the undisturbed run of one process."""
    monkeypatch.setattr(evaluation_run, "evaluate", evaluate)
    rhythm = ("steps=60", "log_freq=7", "checkpoint_freq=10", "eval_freq=60")
    rhythm += ("max_episode_steps=3",)
    command = [*tiny_overrides, *rhythm, f"parallel_update={parallel}"]
    folder = folder_of(compose(command))
    with start("train.py", *command) as process:
        wait_for(process, (folder / "last.safetensors").exists)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "eval.csv").exists()
    with start("train.py", *command) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert re.search(r"continuing \S+ at update \d+0\n", out)
    assert out.endswith(f"finished: {folder}\n")
    assert_same_run(folder, reference(*rhythm))


def running_children(pid: int) -> list[int]:
    """Worker processes of a process (not the tracker that multiprocessing starts as well)."""
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            command = stat.with_name("cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid and "spawn_main" in command:
            children.append(int(stat.parent.name))
    return children


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_during_an_evaluation_saves(number, tiny_overrides, reference):
    """Ctrl-C reaches the workers too, here while they are still importing."""
    rhythm = ("steps=20", "log_freq=5", "checkpoint_freq=100", "eval_freq=10")
    rhythm += ("max_episode_steps=1000", "num_eval_episodes=20")
    command = [*tiny_overrides, *rhythm]
    config = compose(command)
    folder = folder_of(config)
    with start("train.py", *command) as process:
        wait_for(process, lambda: running_children(process.pid))
        workers = running_children(process.pid)
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    assert out.splitlines()[-1] == f"stopped; the same command continues: {folder}"
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert checkpoint.load(folder / "last.safetensors")[1]["step"] == 10
    assert not (folder / "eval.csv").exists()
    train.run(config)
    assert steps_logged(folder, "eval") == [10, 20]
    assert_same_run(folder, reference(*rhythm))


# --- broken numbers -------------------------------------------------------------------------------


@pytest.fixture
def own_data(tiny_data, tmp_path) -> Path:
    """A copy of the dataset that a test may damage."""
    return Path(shutil.copytree(tiny_data, tmp_path / "own"))


@pytest.mark.parametrize("column", ["actions", "qpos", "state_observations"])
def test_nan_in_the_data_names_the_column(column, tiny_config, own_data):
    with h5py.File(episode_path(own_data / "tiny", "train", 3), "r+") as file:
        file[column][7, 2] = float("nan")
    config = tiny_config(*RHYTHM, f"data_dir={own_data}")
    with pytest.raises(UserError, match=f"{own_data}/tiny has NaN or infinity in column {column}"):
        train.run(config)
    assert not folder_of(config).exists()


def test_a_damaged_episode_is_named_with_the_command_that_makes_it_again(tiny_config, own_data):
    path = episode_path(own_data / "tiny", "train", 4)
    path.write_bytes(path.read_bytes()[:-200])
    config = tiny_config(*RHYTHM, f"data_dir={own_data}")
    with pytest.raises(UserError, match=r"train/000004\.h5 is damaged .*; delete it and make that"):
        train.run(config)
    assert not folder_of(config).exists()


def test_a_dataset_without_episodes_is_refused(tiny_config, own_data):
    header = own_data / "tiny" / "header.json"
    content = json.loads(header.read_text())
    content["episodes"]["train"] = 0
    del content["checksum"]  # as the message about a wrong one says
    header.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"own/tiny has no train episodes"):
        train.run(tiny_config(*RHYTHM, f"data_dir={own_data}"))


def break_parameter(patch, update: int) -> None:
    """Make one parameter of the value network infinite before the `update`-th update."""
    real, calls = SGIQL.update, 0

    def breaking(agent, *args):
        nonlocal calls
        calls += 1
        if calls == update:
            next(agent.value.parameters()).data.flatten()[0] = float("inf")
        return real(agent, *args)

    patch.setattr(SGIQL, "update", breaking)


def train_until_broken(config, update: int) -> str:
    with pytest.MonkeyPatch.context() as patch:
        break_parameter(patch, update)
        with pytest.raises(UserError) as error:
            train.run(config)
    return str(error.value)


def test_a_broken_loss_stops_with_its_name_and_the_updates(tiny_config):
    config = tiny_config(*RHYTHM)
    message = train_until_broken(config, 14)
    assert re.match(
        r"value/loss, [a-z/_, ]+ and \d+ more not finite between updates 12 and 16\. ", message
    )
    last = folder_of(config) / "last.safetensors"
    assert f"{last} holds an earlier state" in message
    assert "\n" not in message
    assert checkpoint.load(last)[1]["step"] == 12
    assert steps_logged(folder_of(config)) == [4, 8, 12]


@pytest.mark.parametrize(("update", "found"), [(5, 6), (17, 18)])
def test_a_broken_agent_is_never_saved_nor_evaluated(
    update, found, tiny_config, evaluations, reference
):
    reference(*RHYTHM)
    evaluations.clear()
    config = tiny_config(*RHYTHM)
    message = train_until_broken(config, update)
    assert f"between updates {found - 2} and {found}." in message
    assert len(evaluations) == found // 9 - (found == 18)
    for path in folder_of(config).glob("*.safetensors"):
        tensors, _ = checkpoint.load(path)
        assert all(torch.isfinite(tensor.float()).all() for tensor in tensors.values())
    train.run(config)  # as if the cause had gone
    assert_same_run(folder_of(config), reference(*RHYTHM))


def test_a_failing_evaluation_costs_no_updates(tiny_config, monkeypatch, reference):
    def failing(*_, **__):
        raise RuntimeError("episode 3 (seed 5) failed")

    config = tiny_config(*RHYTHM)
    with monkeypatch.context() as patch:
        patch.setattr(evaluation_run, "evaluate", failing)
        with pytest.raises(RuntimeError, match="episode 3"):
            train.run(config)
    assert checkpoint.load(folder_of(config) / "last.safetensors")[1]["step"] == 9
    train.run(config)
    assert_same_run(folder_of(config), reference(*RHYTHM))


def test_damaged_metrics_are_named_when_a_run_goes_on(tiny_config):
    config = tiny_config(*RHYTHM)
    interrupt(config, lambda patch: fail_at(patch, SGIQL, "update", 14))
    path = folder_of(config) / "train.csv"
    content = path.read_text()
    path.write_text(content.replace(".", ",", 1))
    with pytest.raises(UserError, match=r"train\.csv is damaged .*; move it away"):
        train.run(config)
    path.write_text(content)
    train.run(config)


def test_impossible_values_are_told_of(tiny_config, capsys):
    config = tiny_config("steps=4", "log_freq=2", "gamma=0.01")
    with pytest.MonkeyPatch.context() as patch:
        real = SGIQL.update
        patch.setattr(
            SGIQL, "update", lambda *args: real(*args) | {"value/mean": torch.tensor(5.0)}
        )
        train.run(config)
    warnings = (folder_of(config) / "warnings.txt").read_text()
    assert re.search(r"update 2: value/mean is 5, but values lie in \[-1\.01, 0\]", warnings)
    assert "warning: update 2: value/mean" in capsys.readouterr().out


def test_a_broken_agent_is_not_saved_on_a_signal_either(tiny_config):
    config = tiny_config("steps=20", "log_freq=20", "checkpoint_freq=4")
    with pytest.MonkeyPatch.context() as patch:
        break_parameter(patch, 6)
        signal_at(patch, SGIQL, "update", 6, signal.SIGINT)
        with pytest.raises(UserError, match="not finite between updates 0 and 6"):
            train.run(config)
    assert checkpoint.load(folder_of(config) / "last.safetensors")[1]["step"] == 4


# --- checkpoints ----------------------------------------------------------------------------------


def test_best_is_the_most_successful_and_of_equals_the_newest(tiny_config, monkeypatch):
    prescribed = {5: 2, 10: 8, 15: 8, 20: 4}
    script = iter(prescribed.values())
    monkeypatch.setattr(evaluation_run, "evaluate", lambda *_, **__: result(next(script)))
    config = tiny_config("steps=20", "eval_freq=5", "log_freq=10", "checkpoint_freq=10")
    train.run(config)
    folder = folder_of(config)
    best, last = (checkpoint.load(folder / f"{n}.safetensors")[1] for n in ("best", "last"))
    assert (best["step"], last["step"]) == (15, 20)
    assert best["extra"]["best"] == last["extra"]["best"] == 0.8
    rows = logged(folder, "eval")
    assert {int(row["step"]): 10 * float(row["success"]) for row in rows} == prescribed
    assert all(row["success_low"] <= row["success"] <= row["success_high"] for row in rows)


def test_best_survives_a_restart(tiny_config, monkeypatch):
    script = iter([8, 4])
    monkeypatch.setattr(evaluation_run, "evaluate", lambda *_, **__: result(next(script)))
    config = tiny_config("steps=20", "eval_freq=10", "checkpoint_freq=10")
    interrupt(config, lambda patch: fail_at(patch, SGIQL, "update", 12))
    train.run(config)
    assert checkpoint.load(folder_of(config) / "best.safetensors")[1]["step"] == 10


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_checkpoint_is_all_that_evaluation_needs(name, reference):
    path = reference(*RHYTHM) / f"{name}.safetensors"
    setup, config, step = load_agent(path, torch.device("cpu"))
    assert step == checkpoint.load(path)[1]["step"]
    assert (config.agent, setup.world.num_cubes) == ("sgiql", 1)
    assert (setup.normaliser.var != 1).any()


def test_without_save_agent_there_are_no_checkpoints(tiny_config, capsys):
    config = tiny_config(*RHYTHM, "save_agent=false")
    with pytest.MonkeyPatch.context() as patch:
        signal_at(patch, SGIQL, "update", 10, signal.SIGINT)
        with pytest.raises(SystemExit):
            train.run(config)
    assert "starts over" in capsys.readouterr().out
    assert list(folder_of(config).glob("*.safetensors")) == []


# --- finished runs --------------------------------------------------------------------------------


def test_a_finished_run_says_so_and_changes_nothing(tiny_config, evaluations, capsys):
    config = tiny_config(*RHYTHM)
    train.run(config)
    folder = folder_of(config)
    names = ("last.safetensors", "best.safetensors", "train.csv", "eval.csv", "timing.csv")
    before = {name: (folder / name).read_bytes() for name in names}
    moments = {name: (folder / name).stat().st_mtime_ns for name in names[:2]}
    evaluations.clear()
    capsys.readouterr()
    train.run(config)
    assert capsys.readouterr().out == f"already finished, 20 updates: {folder}\n"
    assert {name: (folder / name).read_bytes() for name in names} == before
    assert {name: (folder / name).stat().st_mtime_ns for name in moments} == moments
    assert evaluations == []
    starts = json.loads((folder / "provenance.json").read_text())
    assert len(starts) == 2


def test_more_steps_continue_a_finished_run(tiny_config, reference, capsys):
    rhythm = ("log_freq=4", "eval_freq=10", "checkpoint_freq=6")
    train.run(tiny_config(*rhythm, "steps=10"))
    config = tiny_config(*rhythm, "steps=20")
    train.run(config)
    assert "at update 10\n  steps=20, was 10\n" in capsys.readouterr().out
    assert_same_run(folder_of(config), reference(*rhythm, "steps=20"))


# --- what is wrong with the settings --------------------------------------------------------------


def test_data_of_another_number_of_cubes_names_both(tiny_config):
    config = tiny_config("env_kwargs.manipobj.num_cubes=3")
    with pytest.raises(UserError, match=r"tiny does not fit: .*num_cubes=1.*num_cubes=3"):
        train.run(config)


def test_a_missing_dataset_names_the_command_that_makes_it(tiny_config, tmp_path):
    data_dir = tmp_path / "no data"
    config = tiny_config("train_dataset_name=absent", f"data_dir={data_dir}")
    with pytest.raises(UserError, match="no dataset absent") as error:
        train.run(config)
    (command,) = re.findall("`(.*)`", str(error.value))
    python, script, *overrides = shlex.split(command)
    assert (python, script) == ("python", "collect.py")
    collecting = compose(overrides)
    assert (collecting.dataset_name, collecting.data_dir) == ("absent", str(data_dir))
    assert (collecting.world.num_cubes, collecting.world.mode) == (1, "data_collection")


def test_a_missing_dataset_makes_no_run_folder(tiny_config):
    config = tiny_config("train_dataset_name=absent")
    with pytest.raises(UserError):
        train.run(config)
    assert not folder_of(config).exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("obs=dlp", "obs=dlp needs an encoder: set rep_model_checkpoint=FOLDER"),
        ("env_kwargs.manipobj.num_cubes=0", "num_cubes"),
    ],
)
def test_settings_that_cannot_be_trained_get_one_clear_line(override, message, tiny_config):
    with pytest.raises(UserError, match=message) as error:
        train.run(tiny_config(override))
    assert "\n" not in str(error.value)


def test_the_command_prints_mistakes_as_one_line(tiny_overrides):
    with start("train.py", *tiny_overrides, "env_kwargs.manipobj.num_cubes=0") as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert re.fullmatch(r"error: .*num_cubes.*1 to 6.*\n", err)
