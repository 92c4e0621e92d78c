"""Train an image encoder on a dataset's frames; `config.yaml`, section `encoder`, has all settings.

python -m visual_encoders.train encoder.kind=vqvae train_dataset_name=my-cubes
accelerate launch --multi_gpu --num_processes 4 -m visual_encoders.train ...      (GPUs)
torchrun --nproc_per_node 2 -m visual_encoders.train device=cpu ...               (CPU)

The same command continues a run that was stopped, from its last checkpoint. Its folder is what
`rep_model_checkpoint` takes.
"""

import torch

from common.foundation.registry import ENCODERS, load
from common.settings.config import Config
from common.settings.launch import hydra_main
from common.training.loop import train_in_folder
from common.training.team import Team, train_together
from visual_encoders.base import EncoderModel
from visual_encoders.images import Batches, ValidationBatches, open_frames
from visual_encoders.settings import ENCODER_RUNS
from visual_encoders.training import EncoderTrainer


def run(config: Config) -> None:
    """Train what `config` says in the run's own folder."""
    train_together(config, _train)


def _train(config: Config, team: Team) -> int | None:
    """Train; returns the signal that stopped it, if one did."""
    model = _make_model(config)
    batches, validation = _make_batches(config, team)
    return train_in_folder(
        config,
        team,
        lambda folder: EncoderTrainer(config, model, batches, validation, folder, team),
        ENCODER_RUNS,
        model.remarks,
    )


def _make_model(config: Config) -> EncoderModel:
    """The untrained encoder."""
    torch.manual_seed(config.seed)  # of the initial parameters
    kind = load(ENCODERS[config.encoder.kind])
    return kind(config.encoder_settings, config.encoder.image_size)


def _make_batches(config: Config, team: Team) -> tuple[Batches, ValidationBatches]:
    """Training and validation batches of this process."""
    settings = config.encoder
    team.check_seed(config.seed)
    train, valid = open_frames(
        config.data_dir,
        config.train_dataset_name,
        div=config.train_dataset_div,
        limit=settings.frames_per_episode,
        holdout=settings.holdout,
        size=settings.image_size,
    )
    size, seed, place = settings.batch_size, config.seed, (team.rank, team.size)
    return (
        Batches(train, size, seed, *place),
        ValidationBatches(valid, settings.valid_images, size, seed, *place),
    )


if __name__ == "__main__":
    hydra_main(run)()
