"""Train an image encoder on a dataset's frames; `config.yaml`, section `encoder`, has all settings.

python -m visual_encoders.train encoder.kind=vqvae train_dataset_name=my-cubes
accelerate launch --multi_gpu --num_processes 4 -m visual_encoders.train ...      (GPUs)
torchrun --nproc_per_node 2 -m visual_encoders.train device=cpu ...               (CPU)

The same command continues a run that was stopped, from its last checkpoint. Its folder is what
`rep_model_checkpoint` takes.
"""

import contextlib
from typing import Any

from common.settings.config import Config
from common.settings.launch import hydra_main


def run(config: Config) -> None:
    """Train what `config` says in the run's own folder."""
    from common.training.team import train_together

    train_together(config, _train)


def _train(config: Config, team: Any) -> int | None:
    """Train; returns the signal that stopped it, if one did."""
    from common.foundation.device import describe_device
    from common.runs.folders import open_run, run_path
    from visual_encoders.settings import ENCODER_RUNS
    from visual_encoders.training import EncoderTrainer

    model = _make_model(config)
    batches = _make_batches(config, team)
    path = run_path(config, ENCODER_RUNS)
    with contextlib.ExitStack() as stack:
        if team.is_main:  # the others write nothing, so they need no lock
            machine = describe_device(team.device) | {"processes": team.size}
            folder = stack.enter_context(open_run(config, machine, ENCODER_RUNS))
        team.wait()
        trainer = EncoderTrainer(config, model, *batches, path, team)
        if team.is_main and trainer.finished:
            print(f"already finished, {trainer.step} updates: {path}")
        elif team.is_main:
            start = f"continuing {path} at update {trainer.step}" if folder.resumed else str(path)
            print(start, *folder.changes, *model.remarks, sep="\n  ")
        stopped_by = None if trainer.finished else trainer.run()
        team.wait()
    if team.is_main:
        word = "finished" if stopped_by is None else "stopped; the same command continues"
        print(f"{word}: {path}")
    return stopped_by


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
