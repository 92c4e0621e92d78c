"""Settings that name files and folders, checked for what file systems and wandb refuse."""

import re
from typing import Any

from common.foundation.files import check_path
from common.settings.schema import SettingError

FOLDERS = ("run_name", "dataset_name", "train_dataset_name", "eval_variant_name")
PATHS = ("output_dir", "data_dir", "eval_checkpoint", "checkpoint", "rep_model_checkpoint")
PROJECT = r"[^/\\#?%:]{1,128}"


def check_names(options: Any) -> None:
    """Raise `UserError` for a name that no folder can have, or a path that is too long."""
    for name in FOLDERS:
        value = getattr(options, name)
        if value and not re.fullmatch(r"\w[\w.+-]*", value):
            raise SettingError(
                f"{name}={value} cannot name a folder; allowed: letters, digits and . _ + -"
            )
    for name in (*FOLDERS, *PATHS):
        check_path(getattr(options, name) or "", name)
    project = options.wandb_project
    if options.enable_wandb and not re.fullmatch(PROJECT, project):
        raise SettingError(
            f"wandb_project={project:.80} cannot name a project; allowed: 1 to 128 characters, "
            "none of / \\ # ? % :"
        )
