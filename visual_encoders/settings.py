"""Section `encoder` of the settings, and which of them make an encoder's training run."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from common.foundation.registry import ENCODERS, load
from common.runs.folders import RunKind
from common.settings.config import Config, Options, decisive
from common.settings.schema import setting

# Settings outside of `encoder` that decide what the training of an encoder computes.
SHARED = ("seed", "data_dir", "train_dataset_name", "train_dataset_div")


@dataclass(frozen=True)
class EncoderOptions:
    """Settings of all encoders; each has a section of its own beside these."""

    kind: str = setting(choices=tuple(ENCODERS))
    image_size: int = setting(low=16)
    frames_per_episode: int | None = setting(low=1)
    holdout: float = setting(low=0, below=1)
    valid_images: int | None = setting(low=1)
    batch_size: int = setting(low=1)
    updates_per_epoch: int | None = setting(low=1)
    lr: float = setting(above=0)
    lr_decay: float = setting(above=0, high=1)
    adam_eps: float = setting(above=0)
    weight_decay: float = setting(low=0)
    read_workers: int = setting(low=0, identity=False)
    num_pictures: int = setting(low=0, identity=False)
    log_freq: int = setting(low=1)
    checkpoint_freq: int = setting(low=1, identity=False)


def encoder_schema() -> type:
    """The dataclass of the section, every encoder's own section in it."""
    sections = [(name, load(target).Settings) for name, target in ENCODERS.items()]
    return dataclasses.make_dataclass(
        "EncoderSettings", sections, bases=(EncoderOptions,), frozen=True
    )


def _identity(config: Config) -> dict[str, Any]:
    shared = decisive("", config, Options)
    section = f"encoder.{config.encoder.kind}"
    own = config.encoder_settings
    return (
        {key: shared[key] for key in SHARED}
        | decisive("encoder", config.encoder, EncoderOptions)
        | decisive(section, own, type(own))
    )


def _title(config: Config) -> str:
    return f"{config.encoder.kind}_{config.train_dataset_name}_{config.seed}"


ENCODER_RUNS = RunKind("encoders", _title, _identity)
