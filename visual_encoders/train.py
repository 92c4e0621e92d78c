"""Train an image encoder on a dataset's frames; `config.yaml`, section `encoder`, has all settings.

python -m visual_encoders.train encoder.kind=vqvae train_dataset_name=my-cubes
accelerate launch --multi_gpu --num_processes 4 -m visual_encoders.train ...      (GPUs)
torchrun --nproc_per_node 2 -m visual_encoders.train device=cpu ...               (CPU)

The same command continues a run that was stopped, from its last checkpoint. Its folder is what
`rep_model_checkpoint` takes.
"""

import torch

from common.foundation.registry import ENCODERS, load
from common.runs.folders import last_checkpoint, run_path
from common.runs.identity import Sources, compare, source
from common.settings.config import Config
from common.settings.launch import hydra_main
from common.training.loop import train_in_folder
from common.training.team import Team, train_together
from visual_encoders.base import EncoderModel
from visual_encoders.checkpoints import fingerprint
from visual_encoders.images import Batches, ValidationBatches, open_frames
from visual_encoders.settings import ENCODER_RUNS
from visual_encoders.training import EncoderTrainer


def run(config: Config) -> None:
    """Train what `config` says in the run's own folder."""
    train_together(config, _train)


def _train(config: Config, team: Team) -> int | None:
    """Train; returns the signal that stopped it, if one did."""
    last_checkpoint(config, ENCODER_RUNS)  # its folder is looked at before the work
    model = _make_model(config)
    batches, validation = _make_batches(config, team)
    sources = _sources(config, batches, validation)
    origin = compare(run_path(config, ENCODER_RUNS), sources, config.allow_changed_data)
    parts = config, model, batches, validation
    return train_in_folder(
        config,
        team,
        lambda folder: EncoderTrainer(*parts, folder, team, origin.sources),
        ENCODER_RUNS,
        model.remarks,
        origin,
    )


def _sources(config: Config, batches: Batches, validation: ValidationBatches) -> Sources:
    """Identity of what the encoder learns from."""
    found = {"dataset": batches.frames.source()}
    if validation.frames.split != batches.frames.split:
        found["validation"] = validation.frames.source()
    judge = getattr(config.encoder_settings, "lpips", None)
    return found | ({"perceptual network": source(judge, fingerprint(judge))} if judge else {})


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
