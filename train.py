"""Train an agent on an offline dataset; `config.yaml` has all settings.

python train.py agent=sgiql env_kwargs.manipobj.num_cubes=3 train_dataset_name=my-cubes seed=1

The same command continues a run that was stopped, from its last checkpoint.
"""

from common.config import Config, hydra_main


def run(config: Config) -> None:
    """Train what `config` says in the run's own folder."""
    from common.agent_files import make_setup, make_world, observe, restore_agent
    from common.device import describe_device, resolve_device, set_deterministic, set_threads
    from common.observations import Normaliser
    from common.pretrained import load_goal_policy, load_start
    from common.runs import open_run
    from common.trainer import Trainer
    from common.training_data import load_training_data

    device = resolve_device(config.device)
    set_threads(config.threads)
    set_deterministic(config.deterministic)
    world = make_world(config)
    observation = observe(config, world)
    # The agent first: what it cannot learn from is refused before minutes of reading.
    setup = make_setup(config, world, observation, Normaliser.none(device))
    start, scales = load_start(config), None
    if start:
        restore_agent(setup, start)
        scales = Normaliser(**start.state["normaliser"])  # what its parameters are made for
    buffer, setup.normaliser = load_training_data(config, world, observation, device, scales)
    load_goal_policy(setup, config)
    with open_run(config, describe_device(device)) as folder:
        trainer = Trainer(config, setup, buffer, folder.path)
        if trainer.finished:
            print(f"already finished, {trainer.step} updates: {folder.path}")
            return
        if folder.resumed:
            print(f"continuing {folder.path} at update {trainer.step}", *folder.changes, sep="\n  ")
        stopped_by = trainer.run()
    if stopped_by is not None:
        again = "continues" if config.save_agent else "starts over (save_agent=false)"
        print(f"stopped; the same command {again}: {folder.path}")
        raise SystemExit(128 + stopped_by)  # as shells say it, so that a script ends there too
    print(f"finished: {folder.path}")


if __name__ == "__main__":
    hydra_main(run)()
