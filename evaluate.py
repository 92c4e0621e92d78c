"""Evaluate a trained agent; `config.yaml` has all settings.

python evaluate.py eval_checkpoint=output/train/RUN num_eval_episodes=50 sgiql.disable_subgoal=true

`eval_checkpoint` is a checkpoint file or a training run's folder, whose `last` checkpoint is taken.
What the command line sets holds; everything else is as the agent was trained, but for `device`,
`deterministic`, `threads`, `num_workers`, `worker_*` and `output_dir`. Results go to a new folder
under `output/eval/`, which appears with them.
"""

from pathlib import Path

import torch

from agents.random_policy import RandomPolicy
from common.evaluation.evaluate import prepare_evaluation
from common.evaluation.results import save_results, table
from common.foundation.device import describe_device, resolve_device, set_deterministic, set_threads
from common.foundation.messages import keeping_warnings
from common.runs.agents import load_agent
from common.runs.folders import make_eval_parent, new_eval_folder, provenance
from common.runs.setup import Setup
from common.settings.config import Config, parse
from common.settings.inherit import find_checkpoint, given_keys, merge
from common.settings.launch import hydra_main


def run(command: Config) -> None:
    """Evaluate the agent that `command` names."""
    path = find_checkpoint(command.eval_checkpoint)
    device = resolve_device(command.device)
    set_threads(command.threads)
    set_deterministic(command.deterministic)
    setup, config, step = _load(path, command, device)
    evaluation = prepare_evaluation(config, setup)
    record = provenance(describe_device(device))
    make_eval_parent(config)  # before the work, which a disk that refuses would make worthless
    result = evaluation(seed=config.seed)
    about = {"checkpoint": str(path), "checkpoint_checksum": setup.checksum, "updates": step}
    about |= {"data": setup.data, "settings": config.raw}
    folder = new_eval_folder(config, record)
    with keeping_warnings(folder):
        files = save_results(folder, result, about | {"provenance": record})
    acting = "random policy" if config.random_policy else f"{config.agent} after {step} updates"
    print(
        f"\n{acting} on {config.task}: {len(result.rows)} episodes "
        f"of {config.max_episode_steps} steps, seed {config.seed}\n{table(result)}"
    )
    print(*files, sep="\n")


def _load(path: Path, command: Config, device: torch.device) -> tuple[Setup, Config, int]:
    """The agent at `path`, its settings with those of the command line, and its updates."""
    given = given_keys()
    setup, config, step = load_agent(
        path, device, configure=lambda stored: parse(merge(stored, command.raw, given))
    )
    if config.random_policy:
        setup.agent, step = RandomPolicy(setup.world.actions.size), 0
    return setup, config, step


if __name__ == "__main__":
    hydra_main(run)()
