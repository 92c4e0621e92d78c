"""Several processes train one agent: as one process does, and without waiting for each other."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import accelerate  # noqa: F401  here, so that the forked processes have it
import pytest
import torch

import train
from agents.iql.sgiql import SGIQL
from common.evaluation import evaluate as evaluation_run
from common.foundation.errors import UserError, one_line_errors
from common.runs import checkpoint
from common.settings.config import compose
from datasets.store import episode_path
from tests.helpers.crashes import fail_at
from tests.helpers.training import (
    RHYTHM,
    assert_same_run,
    folder_of,
    free_port,
    logged,
    signal_at,
    start,
    steps_logged,
    wait_for,
)

SIZE = 2


def together(config, arrange: Callable = lambda patch, rank: None) -> list[int]:
    """Train in two processes, each prepared by `arrange(monkeypatch, rank)`; their exit codes."""
    place = {"WORLD_SIZE": SIZE, "LOCAL_WORLD_SIZE": SIZE, "OMP_NUM_THREADS": 1}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}

    def member(rank: int) -> None:
        os.environ.update(
            {k: str(v) for k, v in (place | {"RANK": rank, "LOCAL_RANK": rank}).items()}
        )
        arrange(pytest.MonkeyPatch(), rank)
        with one_line_errors():
            train.run(config)

    processes = [get_context("fork").Process(target=member, args=(r,)) for r in range(SIZE)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
        process.kill()
    return [process.exitcode for process in processes]


@pytest.fixture(scope="module")
def finished() -> list[Path]:
    """The folder of the run of `undisturbed`, once there is one."""
    return []


@pytest.fixture
def undisturbed(tiny_data, tmp_path_factory, finished) -> Path:
    """The folder of a run of two processes that nothing interrupts; made once, by fake evaluations.

    Those are replaced for each test, so a fixture of the module would come before them.
    """
    from tests.conftest import TINY

    if not finished:
        output = tmp_path_factory.mktemp("undisturbed")
        config = compose([*TINY, *RHYTHM, f"data_dir={tiny_data}", f"output_dir={output}"])
        assert together(config) == [0, 0]
        finished.append(folder_of(config))
    return finished[0]


# --- the same results -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        ["sgiql.value_competence_radius=auto"],
        ["agent=hiql", "obs=state", "arch_mlp.h_dim=16", "hiql.awr_broadcast_weights=true"],
    ],
)
def test_two_processes_compute_what_one_does(overrides, tiny_config, tmp_path):
    """Gradients of every network, metrics and derived figures, but for the order of sums."""
    rhythm = ("steps=4", "log_freq=2", "eval_freq=4", "grad_clip_norm=0.5")
    alone = tiny_config(*rhythm, *overrides)
    train.run(alone)
    shared = tiny_config(*rhythm, *overrides, f"output_dir={tmp_path / 'two'}")
    assert together(shared) == [0, 0]
    one, two = folder_of(alone), folder_of(shared)
    tensors, others = (checkpoint.load(f / "last.safetensors")[0] for f in (one, two))
    assert tensors.keys() == others.keys()
    means = [name for name in tensors if name.endswith("exp_avg") or "calibration" in name]
    assert len(means) == 4 + ("agent/calibration/radius" in tensors)
    for name in means:
        scale = tensors[name].abs().max()
        assert torch.allclose(tensors[name], others[name], rtol=1e-3, atol=1e-5 * scale), name
    assert steps_logged(one) == steps_logged(two) == [2, 4]
    for row, other in zip(logged(one), logged(two), strict=True):
        numbers = [{name: float(x) for name, x in r.items()} for r in (row, other)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-4)


def test_one_process_writes_the_records(undisturbed):
    assert steps_logged(undisturbed) == steps_logged(undisturbed, "timing") == [4, 8, 12, 16, 20]
    assert steps_logged(undisturbed, "eval") == [9, 18, 20]
    (start,) = json.loads((undisturbed / "provenance.json").read_text())
    assert start["processes"] == SIZE


# --- stopped --------------------------------------------------------------------------------------


def test_a_crash_leaves_no_trace(tiny_config, undisturbed):
    config = tiny_config(*RHYTHM)
    assert together(config, lambda patch, _: fail_at(patch, SGIQL, "update", 11)) == [1, 1]
    assert together(config) == [0, 0]
    assert_same_run(folder_of(config), undisturbed)


@pytest.mark.parametrize("rank", range(SIZE))
def test_a_signal_to_one_process_stops_all(rank, tiny_config, undisturbed, capfd):
    def arrange(patch, own: int) -> None:
        if own == rank:
            signal_at(patch, SGIQL, "update", 10, signal.SIGTERM)

    config = tiny_config(*RHYTHM)
    folder = folder_of(config)
    assert together(config, arrange) == [128 + signal.SIGTERM] * SIZE
    assert capfd.readouterr().out.endswith(f"stopped; the same command continues: {folder}\n")
    assert checkpoint.load(folder / "last.safetensors")[1]["step"] == 10
    assert together(config) == [0, 0]
    assert_same_run(folder, undisturbed)


def test_a_signal_breaks_off_an_evaluation_while_others_wait(tiny_config, undisturbed):
    def arrange(patch, own: int) -> None:
        if own == 0:
            signal_at(patch, evaluation_run, "evaluate", 2, signal.SIGINT)

    config = tiny_config(*RHYTHM)
    assert together(config, arrange) == [128 + signal.SIGINT] * SIZE
    assert steps_logged(folder_of(config), "eval") == [9]
    assert together(config) == [0, 0]
    assert_same_run(folder_of(config), undisturbed)


def test_the_end_of_one_process_is_noticed_by_the_other(tiny_config, capfd):
    def arrange(patch, own: int) -> None:
        if own == 1:
            signal_at(patch, SGIQL, "update", 7, signal.SIGKILL)

    config = tiny_config(*RHYTHM)
    assert together(config, arrange) == [2, -signal.SIGKILL]
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "another process of this training ended" in lines[0]
    assert checkpoint.load(folder_of(config) / "last.safetensors")[1]["step"] == 6


def test_torchrun_hands_on_a_signal(tiny_overrides):
    command = [*tiny_overrides, "steps=1000000", "checkpoint_freq=5", "log_freq=5"]
    last = folder_of(compose(command)) / "last.safetensors"
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", str(SIZE))
    process = start(*launcher, "--master_port", str(free_port()), "train.py", *command)
    wait_for(process, last.exists)
    process.terminate()
    out, err = process.communicate(timeout=100)
    assert out == f"stopped; the same command continues: {last.parent}\n", err
    assert checkpoint.load(last)[1]["step"] >= 5


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("batch_size=9", "batch_size=9 cannot be shared by 2 processes; choose a multiple"),
        ("parallel_update=always", "not possible: 2 processes share each batch already; use auto"),
        ("seed=random", "seed=random gives each process another seed; set seed to a number"),
    ],
)
def test_what_cannot_be_shared_is_refused_in_one_line(override, line, tiny_overrides, capfd):
    def draw_own_seed(patch, rank: int) -> None:
        if override == "seed=random":
            patch.setattr(
                train, "run", lambda config: run(compose([*tiny_overrides, f"seed={rank}"]))
            )

    run = train.run
    config = compose([*tiny_overrides, override])
    assert together(config, draw_own_seed) == [2, 2]
    (said,) = [text for text in capfd.readouterr().err.splitlines() if "error" in text]
    assert said.startswith("error: ") and line in said


def test_processes_that_see_different_folders_are_refused(tiny_config, tmp_path, capfd):
    config = tiny_config(*RHYTHM, "steps=6")
    assert together(config) == [0, 0]

    def elsewhere(patch, rank: int) -> None:
        if rank:
            patch.setattr("common.training.loop.run_path", lambda *_: tmp_path / "elsewhere")

    assert together(config, elsewhere) == [2, 2]
    assert "do not see the same" in capfd.readouterr().err


def test_changed_data_are_refused_in_one_line(tiny_data, tiny_config, tmp_path, capfd):
    data = shutil.copytree(tiny_data, tmp_path / "own")
    config = tiny_config("steps=2", "log_freq=2", f"data_dir={data}", "save_video=false")
    assert together(config) == [0, 0]
    shutil.copy(*(episode_path(data / "tiny", "train", index) for index in (1, 0)))
    capfd.readouterr()
    assert together(config) == [2, 2]
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert len(said) == 1 and "learned from other data" in said[0]


def test_graphs_are_for_one_process():
    from common.training.engine import choose_acceleration

    cuda = torch.device("cuda")
    with pytest.raises(UserError, match="cudagraphs=true is for one process"):
        choose_acceleration(compose(["cudagraphs=true"]), cuda, processes=2)
    auto = compose(["compile=false"])
    assert choose_acceleration(auto, cuda, processes=1).cudagraphs
    assert not choose_acceleration(auto, cuda, processes=2).cudagraphs
