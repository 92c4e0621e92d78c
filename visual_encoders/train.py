"""Train an image encoder on a dataset's frames; `config.yaml`, section `encoder`, has all settings.

python -m visual_encoders.train encoder.kind=vqvae train_dataset_name=my-cubes
accelerate launch --multi_gpu --num_processes 4 -m visual_encoders.train ...      (GPUs)
torchrun --nproc_per_node 2 -m visual_encoders.train device=cpu ...               (CPU)

The same command continues a run that was stopped, from its last checkpoint. Its folder is what
`rep_model_checkpoint` takes.
"""

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
    from visual_encoders.settings import ENCODER_RUNS
    from visual_encoders.training import EncoderTrainer

    model = _make_model(config)
    batches = _make_batches(config, team)
    return train_in_folder(
        config,
        team,
        lambda folder: EncoderTrainer(config, model, *batches, folder, team),
        ENCODER_RUNS,
        model.remarks,
    )


def _make_model(config: Config) -> Any:
    """The untrained encoder."""
    import torch

    from common.foundation.registry import ENCODERS, load

    torch.manual_seed(config.seed)  # of the initial parameters
    cls = load(ENCODERS[config.encoder.kind])
    return cls(config.encoder_settings, config.encoder.image_size)


def _make_batches(config: Config, team: Any) -> tuple[Any, Any]:
    """Training and validation batches of this process."""
    from visual_encoders.images import Batches, ValidationBatches, open_frames

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
