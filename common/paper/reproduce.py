"""A table of the paper from nothing: `bash commands/reproduce.sh TABLE [SCALE] [key=value ...]`.

TABLE: main, ablations, subgoals or generalization. SCALE: an entry of `commands/scales.yaml`; its
keys experiments, agents, seeds (lists with commas), jobs, output_dir, data_dir and download can be
given anew. `allow_changed_data=true` is for trainings whose data have changed. `launcher=slurm`
submits trainings and evaluations through Hydra's submitit launcher; further arguments for Hydra,
such as `hydra.launcher.partition=gpu`, are passed on.

What is missing is collected or downloaded, trained, evaluated; then the table is made, in `tables/`
of the output folder. Finished parts are skipped, so the same command continues after any stop.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from common.foundation.errors import UserError, did_you_mean, one_line_errors
from common.paper import tables
from common.paper.comparison import TABLES
from common.paper.experiments import Scale, read_scales
from common.paper.jobs import run_all
from common.paper.plan import Plan

SLURM = ("-m", "hydra/launcher=submitit_slurm")
KEYS = {  # that may be given -> how their text is read
    "experiments": lambda text: text.split(","),
    "agents": lambda text: text.split(","),
    "seeds": lambda text: [int(seed) for seed in text.split(",")],
    "jobs": int,
    "output_dir": str,
    "data_dir": str,
    "download": lambda text: _flag(text, "download"),
}
USAGE = "give TABLE [SCALE] [key=value ...], such as `bash commands/reproduce.sh main laptop`"


def make_plan(arguments: Sequence[str]) -> Plan:
    """Read the command line; raises `UserError` for what it does not understand."""
    scales = read_scales()
    words = [argument for argument in arguments if "=" not in argument]
    if not 1 <= len(words) <= 2:
        raise UserError(f"{USAGE}; tables: {', '.join(TABLES)}; scales: {', '.join(scales)}")
    table, name = _choice(words[0], "table", TABLES), (*words, "paper")[1]
    scale = scales[_choice(name, "scale", scales)]
    launcher, cluster = [], False
    for argument in arguments:
        key, given, value = argument.partition("=")
        if given and key.startswith("hydra"):
            launcher.append(argument)
        elif given and key == "allow_changed_data":
            train = scale.changes.get("train", {}) | {key: _flag(value, key)}
            scale = dataclasses.replace(scale, changes={**scale.changes, "train": train})
        elif given and key == "launcher":
            cluster = _choice(value, key, ("local", "slurm")) == "slurm"
        elif given:
            scale = _change(scale, key, value)
    if launcher and not cluster:
        raise UserError(f"{launcher[0]} is for a cluster; add launcher=slurm, or leave it out")
    return Plan(table, scale, [*SLURM, *launcher] if cluster else [])


def _change(scale: Scale, key: str, text: str) -> Scale:
    try:
        value: Any = KEYS[_choice(key, "key", [*KEYS, "launcher", "allow_changed_data"])](text)
    except ValueError as error:
        raise UserError(f"{key}={text} is not a number, or several with commas") from error
    if key == "jobs" and value < 1:
        raise UserError(f"jobs={text} must be at least 1")
    return dataclasses.replace(scale, **{key: value})


def _flag(text: str, key: str) -> bool:
    return _choice(text, key, ("true", "false")) == "true"


def _choice(given: str, what: str, known: Any) -> str:
    if given not in known:
        allowed = f"known: {', '.join(known)}"
        raise UserError(f"unknown {what} {given}; {allowed}{did_you_mean(given, known)}")
    return given


def reproduce(plan: Plan) -> None:
    """Do what the plan lists, phase after phase, then make the table."""
    scale = plan.scale
    if not plan.figures():
        given = f"{','.join(scale.experiments)} and {','.join(scale.agents)}"
        raise UserError(
            f"table {plan.table} has no figure in commands/experiments.yaml for {given} "
            "at this scale, see commands/scales.yaml"
        )
    # A cluster queues all jobs itself.
    at_once = 1000 if plan.launcher else scale.jobs
    for phase, jobs, number in (
        ("data", plan.preparations, 1),
        ("training", plan.trainings, at_once),
        ("evaluation", plan.evaluations, at_once),
    ):
        open_jobs = jobs()
        print(f"== {phase}: {len(open_jobs) or 'nothing'} to do ==", flush=True)
        run_all(open_jobs, number)
    print("== table ==")
    tables.main([scale.output_dir, "--table", plan.table])


def main() -> None:
    with one_line_errors():
        reproduce(make_plan(sys.argv[1:]))


if __name__ == "__main__":
    main()
