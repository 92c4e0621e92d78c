"""Train an agent, on a dataset or on what it does; `config.yaml` has all settings.

python train.py agent=sgiql env_kwargs.manipobj.num_cubes=3 train_dataset_name=my-cubes seed=1
python train.py agent=td3 task=pushing-v0 obs=ec_state

torchrun --nproc_per_node 2 train.py ...      (two GPUs, or with device=cpu two CPU processes)

The same command continues a run that was stopped, from its last checkpoint.
"""

import contextlib
from pathlib import Path
from typing import Any

from common.settings.config import Config
from common.settings.launch import hydra_main


def run(config: Config) -> None:
    """Train what `config` says in the run's own folder."""
    from common.training.team import train_together

    train_together(config, _train)


def _train(config: Config, team: Any) -> int | None:
    """Train; returns the signal that stopped it, if one did."""
    from common.training.loop import train_in_folder
    from common.training.offline import Trainer
    from common.training.online import Experience
    from common.training.source import Source

    setup, buffer, origin = _prepare(config, team)

    def make(folder: Path) -> Trainer:
        source = Experience(config, setup, buffer, folder, team) if buffer.grows else Source()
        return Trainer(config, setup, buffer, folder, team, source)

    return train_in_folder(config, team, make, origin=origin)


def _prepare(config: Config, team: Any) -> tuple[Any, Any, Any]:
    """The agent, as it is before its first update, what it learns from, and what that is.

    A run that goes on keeps its normaliser, and needs no checkpoint of another run.
    """
    from common.data.normaliser import Normaliser
    from common.runs.agents import restore_agent
    from common.runs.checkpoint import load_checkpoint
    from common.runs.folders import last_checkpoint, run_path
    from common.runs.identity import compare
    from common.runs.loading import data_sources, load_training_data
    from common.runs.setup import make_setup, observe
    from common.runs.warm_start import load_goal_policy, load_start, start_sources
    from common.training.online import make_replay
    from common.training.team import check_shares
    from envs.make import make_world

    team.check_seed(config.seed)
    last = last_checkpoint(config)
    world = make_world(config)
    observation = observe(config, world)
    # The agent first: what it cannot learn from is refused before minutes of reading.
    average = team.average if team.size > 1 else None
    setup = make_setup(config, world, observation, Normaliser.none(team.device), average)
    own = setup.agent.batch_size  # for agents with one of their own
    key = f"{config.agent}.batch_size" if own else "batch_size"
    check_shares(own or config.batch_size, key, team.size)
    start = load_checkpoint(last) if last else load_start(config)
    if start and not last:
        restore_agent(setup, start)
    # What the parameters are made for.
    scales = Normaliser(**start.state["normaliser"]) if start else None
    if setup.agent.learns_online:
        setup.normaliser = (scales or observation.start(team.device)).to(team.device)
        origin = compare(run_path(config), start_sources(config), config.allow_changed_data)
        setup.data = origin.sources
        return setup, make_replay(config, setup), origin
    rewards = setup.agent.wants.rewards
    with team.in_turn() if observation.encoded else contextlib.nullcontext():
        sources = {**data_sources(config, world, observation, rewards), **start_sources(config)}
        origin = compare(run_path(config), sources, config.allow_changed_data)
        buffer, setup.normaliser = load_training_data(
            config, world, observation, team.device, scales, rewards
        )
    setup.data = origin.sources
    if not last:
        load_goal_policy(setup, config)
    return setup, buffer, origin


if __name__ == "__main__":
    hydra_main(run)()
