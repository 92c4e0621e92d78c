"""Checks of settings that one setting alone cannot show."""

import math
import re
from collections.abc import Sequence
from typing import Any

from common.foundation.registry import WORLDS, load
from common.settings.names import check_names
from common.settings.schema import SettingError, check_choice, show


def check_task(options: Any) -> None:
    """Check that `task` is a world of ours, or with `ogbench` a name of OGBench's datasets."""
    task, theirs = options.task, load("envs.ogbench.tasks:TASKS")
    if options.ogbench:
        allowed = load("envs.ogbench.tasks:ALLOWED")
        check_choice("ogbench=true: task", task, tuple(theirs), allowed)
    elif task in theirs:
        raise SettingError(f"task={task} is one of OGBench's; add ogbench=true")
    else:
        check_choice("task", task, tuple(WORLDS))


def check_together(options: Any, eval_tasks: Sequence[int]) -> None:
    """Check what one setting alone cannot show; the world has the evaluation tasks `eval_tasks`."""
    for kind in ("value", "policy"):
        names = [f"p_{goal}goal_{kind}" for goal in ("cur", "traj", "rand")]
        total = sum(getattr(options, name) for name in names)
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise SettingError(f"{' + '.join(names)} is {total:g}; the three must sum to 1")
    misfit = options.arch_eit.misfit("arch_eit")
    if misfit:
        raise SettingError(misfit)
    for name in ("device", "rep_model_device"):
        value = getattr(options, name)
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
            allowed = "auto, cpu, cuda, cuda:N, mps"
            raise SettingError(f"{name}={value} is not known; allowed: {allowed}")
    check_names(options)
    ids = options.eval_task_ids
    if eval_tasks and (not ids or len(set(ids)) < len(ids) or not set(ids) <= set(eval_tasks)):
        allowed = f"allowed: a list of {show(eval_tasks)}"
        raise SettingError(f"eval_task_ids={show(ids)} is not possible; {allowed}")
