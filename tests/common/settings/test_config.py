"""`config.yaml` and the command line."""

import json
import os
import re
import subprocess
import sys

import pytest

from common.foundation.errors import UserError, one_line_errors
from common.settings.config import ROOT, compose, identity, known_keys, parse, read_yaml
from common.settings.overrides import check_arguments
from common.settings.schema import SettingError

SCRIPT = """
import json, sys
from common.settings.launch import hydra_main
from common.foundation.errors import UserError

@hydra_main
def main(config):
    if config.batch_size == 13:
        raise UserError("a dataset is missing")
    print(json.dumps([config.seed, config.agent_settings.alpha, config.world.num_cubes]))

main()
"""


@pytest.fixture(scope="module")
def known() -> list[str]:
    return known_keys()


def message(*overrides: str) -> str:
    with pytest.raises(SettingError) as error:
        compose(overrides)
    return str(error.value)


def refusal(known: list[str], *arguments: str) -> str:
    with pytest.raises(SettingError) as error:
        check_arguments(arguments, known)
    return str(error.value)


def dotted(nested: dict, path: str = "") -> set[str]:
    keys = set()
    for key, value in nested.items():
        keys.add(path + key)
        keys |= dotted(value, f"{path}{key}.") if isinstance(value, dict) else set()
    return keys


def test_config_yaml_and_the_schema_have_the_same_keys(known):
    written = {k: v for k, v in read_yaml().items() if k not in ("defaults", "hydra")}
    assert dotted(written) == set(known)
    assert len(known) == len(set(known))


def test_every_value_in_config_yaml_carries_a_comment():
    lines = (ROOT / "config.yaml").read_text().splitlines()
    values = [line for line in lines if re.match(r"\s*\w+: \S", line)]
    assert len(values) > 80
    assert [line for line in values if not re.search(r"\S\s+# ?\S", line)] == []
    assert max(map(len, lines)) <= 100


def test_the_chosen_sections_arrive_typed():
    config = compose(["sgiql.alpha=0.2", "iql.alpha=0.7", "env_kwargs.manipobj.num_cubes=2"])
    assert config.agent_settings.alpha == 0.2
    assert config.world.num_cubes == 2
    assert compose(["agent=iql", "iql.alpha=0.7"]).agent_settings.alpha == 0.7
    assert (config.lr, config.grad_clip_norm, config.batch_size) == (3e-4, 20.0, 512)
    assert (config.arch_eit.embed_dim, config.arch_eit.n_diffuser_layers) == (64, 8)
    assert config.collect.dataset_type == "noisy" and config.run_name is None


def test_what_agents_share_has_one_default_that_each_may_replace():
    cubes = "env_kwargs.manipobj.num_cubes=2"
    shared = compose(["iql.alpha=0.7", "hiql.subgoal_k=9", cubes]).agent_settings
    assert (shared.alpha, shared.subgoal_k) == (0.7, 9)
    own = compose(["iql.alpha=0.7", "sgiql.alpha=0.2", cubes]).agent_settings
    assert own.alpha == 0.2


def test_the_papers_numbers_are_the_defaults():
    sgiql = compose().agent_settings
    assert (sgiql.tau, sgiql.alpha, sgiql.expectile) == (0.005, 0.1, 0.9)
    assert (sgiql.subgoal_k, sgiql.subgoal_steps, sgiql.num_subgoals) == (50, 25, 32)
    assert (sgiql.n_diffusion_steps, sgiql.n_diffusion_samples) == (10, 256)
    assert sgiql.value_competence_radius == -30 and sgiql.filter_subgoals


def test_a_word_may_stand_for_a_number():
    radius = [f"sgiql.value_competence_radius={value}" for value in ("auto", "-1e1")]
    config = compose(radius[:1])
    assert config.agent_settings.value_competence_radius == "auto"
    assert parse(json.loads(json.dumps(config.raw))) == config
    assert compose(radius[1:]).agent_settings.value_competence_radius == -10.0


def test_a_snapshot_gives_the_same_settings_again():
    config = compose(["seed=7", "lr=1e-3", "agent=iql"])
    assert parse(json.loads(json.dumps(config.raw))) == config
    assert parse(config.raw).lr == 0.001


def test_a_random_seed_is_drawn_once_and_recorded():
    config = compose(["seed=random"])
    assert isinstance(config.seed, int) and config.raw["seed"] == config.seed
    assert len({compose(["seed=random"]).seed for _ in range(5)}) > 1


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("batch_size=0", "batch_size=0 is too small; allowed: integers of at least 1"),
        ("obs=ec_stat", "obs=ec_stat is not known; allowed: state, ec_state, .*mean ec_state"),
        (
            "agent=sgql",
            "agent=sgql is not known; allowed: iql, hiql, sgiql, .*; did you mean sgiql",
        ),
        ("task=manipobj", "task=manipobj is not known; .*did you mean manipobj-v0"),
        ("seed=soon", "seed=soon is not an integer"),
        ("seed=-1", "seed=-1 is too small"),
        ("gamma=1", "gamma=1.0 is too large; allowed: numbers above 0 and below 1"),
        ("p_curgoal_value=0.5", "p_curgoal_value .* is 1.3; the three must sum to 1"),
        ("p_trajgoal_policy=0.5", "p_curgoal_policy .* is 0.5; the three must sum to 1"),
        ("device=gpu", "device=gpu is not known; allowed: auto, cpu, cuda, cuda:N, mps"),
        ("arch_eit.embed_dim=60", "embed_dim=60 does not fit arch_eit.n_head=8"),
        ("sgiql.value_competence_radius=far", "radius=far is not a number; .* at most 0, or auto"),
        ("sgiql.value_competence_radius=3", "radius=3.0 is too large; .* at most 0, or auto"),
        ("hiql.chamfer_metric=l3", "chamfer_metric=l3 is not known; allowed: l1, l2_simple"),
        ("run_name=../other", r"run_name=\.\./other cannot name a folder"),
        ("train_dataset_name=/data/x", "train_dataset_name=/data/x cannot name a folder"),
        ("agent=iql sgiql.tau=2", "sgiql.tau=2.0 is too large"),
        ("env_kwargs.manipobj.num_cubes=7", "num_cubes=7 is too large"),
        ("env_kwargs.maze.num_cubes=1", "unknown key env_kwargs.maze"),
        ("arch_eit.width=3", "unknown key arch_eit.width"),
        ("sgiql=3", "sgiql=3 is not a section"),
    ],
)
def test_each_mistake_gives_one_line(override, expected):
    line = message(*override.split())
    assert re.search(expected, line), line
    assert "\n" not in line


def test_shares_may_sum_to_one_by_rounding():
    third = "0.333333333333"
    config = compose([f"p_{goal}goal_value={third}" for goal in ("cur", "traj", "rand")])
    assert config.p_randgoal_value == float(third)


def test_a_removed_key_is_missing():
    raw = compose().raw
    del raw["lr"]
    with pytest.raises(SettingError, match=r"key lr is missing; give it a value in config\.yaml"):
        parse(raw)


def test_identity_holds_what_a_run_computes():
    base = identity(compose())
    same = ["steps=5", "device=cpu", "threads=1", "num_workers=3", "run_name=a", "hiql.alpha=1"]
    assert identity(compose(same)) == base
    for override in ("seed=1", "sgiql.alpha=1", "arch_eit.embed_dim=32", "gamma=0.9"):
        different = identity(compose([override]))
        assert [key for key in base if base[key] != different[key]] == [override.split("=")[0]]
    assert identity(compose(["env_kwargs.manipobj.num_cubes=2"])) != base


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["agnet=iql"], "unknown key agnet; did you mean agent?"),
        (["-m", "agnet=iql,sgiql"], "unknown key agnet; did you mean agent?"),
        (["+foo=1"], "unknown key foo"),
        (["++foo=1"], "unknown key foo"),
        (["~foo"], "unknown key foo"),
        (["foo@bar=1"], "unknown key foo"),
        (["alpha=1"], "unknown key alpha; did you mean iql.alpha or hiql.alpha or sgiql.alpha?"),
        (["sgiql.alpah=1"], "unknown key sgiql.alpah; did you mean sgiql.alpha?"),
        (["sgiql={alpah:1}"], "unknown key sgiql.alpah; did you mean sgiql.alpha?"),
        (["~lr"], "~lr would remove a key that is needed; give it a value instead"),
        (["+lr=1"], "+lr=1 adds a key that exists; leave out the +"),
        (["seed=0,1"], "seed=0,1 gives several values; add -m .*"),
        (["batch_size=[1"], r"cannot read batch_size=\[1; write key=value.*"),
        (["batch_size", "3"], "cannot read batch_size; write key=value.*"),
    ],
)
def test_overrides_are_refused_before_hydra_sees_them(known, arguments, expected):
    line = refusal(known, *arguments)
    assert re.fullmatch(expected.replace("?", r"\?").replace("+", r"\+"), line), line


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["--cfg", "job"],
        ["--multirun", "seed=0,1,2"],
        ["-m", "seed=range(3)", "sgiql.alpha=0.1,0.2"],
        ["hydra.verbose=true", "hydra/launcher=basic", "+hydra.foo=1"],
        ["++lr=0.1", "sgiql={alpha:0.2,tau:0.1}", "env_kwargs.manipobj.mode=task_stack"],
    ],
)
def test_what_is_right_passes(known, arguments):
    assert check_arguments(arguments, known) is None  # it would raise


def test_a_syntax_error_in_the_yaml_names_its_line(tmp_path):
    path = tmp_path / "config.yaml"
    for text, line in [("a: 1\nb: [1\nc: 2\n", 3), ("a: 1\na: 2\n", 2), ("a: 1\n b: 2\n", 2)]:
        path.write_text(text)
        with pytest.raises(UserError, match=rf"config\.yaml, line {line}: ") as error:
            read_yaml(path)
        assert "\n" not in str(error.value)


def test_importing_the_settings_loads_neither_torch_nor_the_simulator():
    """Worker processes import the scripts, and would load them once per process."""
    heavy = "{'torch', 'mujoco', 'hydra'}"
    code = f"import sys, common.settings.config; print(sorted({heavy} & set(sys.modules)))"
    assert python(["-c", code], ROOT).stdout == "[]\n"


def python(arguments: list[str], folder) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["agnet=iql"], 2, "", "error: unknown key agnet; did you mean agent?\n"),
        (["batch_size=13"], 2, "", "error: a dataset is missing\n"),
        (["-m", "seed=0,1", "sgiql.alpha=1e-3"], 0, "[0, 0.001, 0]\n[1, 0.001, 0]\n", ""),
    ],
)
def test_a_script_answers_in_one_line(tmp_path, arguments, code, out, err):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = python(["script.py", *arguments], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {"script.py", "output/multirun/multirun.yaml"}


def test_an_interrupt_is_no_traceback(capsys):
    with pytest.raises(SystemExit) as end, one_line_errors():
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert "stopped" in capsys.readouterr().err
