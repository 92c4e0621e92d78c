"""Collect a dataset with an environment's scripted policies; `config.yaml` has all settings.

python collect.py task=manipobj-v0 env_kwargs.manipobj.mode=data_collection \
    env_kwargs.manipobj.num_cubes=3 dataset_name=my-cubes num_collect_episodes=100
"""

import shlex
import sys

from common.foundation.errors import UserError
from common.foundation.pool import Patience
from common.foundation.registry import IMAGE_KINDS
from common.settings.config import Config
from common.settings.launch import hydra_main
from datasets.collection import collect
from envs.make import make_world


def run(config: Config) -> None:
    """Collect what `config` says; states always, images if `obs` is a kind made from images."""
    world = make_world(config)
    world.check_collects()
    if config.dataset_name is None:
        raise UserError("dataset_name is not given; set dataset_name=NAME")
    collect(
        world,
        name=config.dataset_name,
        data_dir=config.data_dir,
        episodes=config.num_collect_episodes,
        seed=config.seed,
        settings=config.collect,
        pixels=config.obs in IMAGE_KINDS,
        workers=config.num_workers,
        patience=Patience(config.worker_timeout, config.worker_retries),
        command=f"python {shlex.join(sys.argv)}",
        shard=config.shard,
        num_shards=config.num_shards,
    )


if __name__ == "__main__":
    hydra_main(run)()
