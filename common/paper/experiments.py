"""The lines of collect.sh, train.sh and eval.sh, and how a scale changes them."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from common.foundation.errors import UserError
from common.settings.config import ROOT, read_yaml

COMMANDS = ROOT / "commands"
SCALES = COMMANDS / "scales.yaml"
SCRIPTS = ("collect", "train", "eval")


@dataclass(frozen=True)
class Scale:
    """An entry of `commands/scales.yaml`, which says what its keys are."""

    seeds: Sequence[int]
    jobs: int
    output_dir: str
    data_dir: str
    download: bool
    experiments: Sequence[str]
    agents: Sequence[str]
    ablations: Sequence[str]
    other_numbers: Mapping[str, Sequence[str]]
    instead: Mapping[str, Mapping[str, str]]
    also: Mapping[str, Sequence[str]]
    own: Mapping[str, Mapping[str, Sequence[str]]]

    def overrides(self, script: str, name: str, line: Sequence[str]) -> list[str]:
        """What is appended at this scale to the line EXPERIMENT[/AGENT[/VARIANT]] of a script."""
        experiment, _, variant = (*name.split("/"), "", "")[:3]
        instead = self.instead[script]
        replaced = [instead[override] for override in line if override in instead]
        own = self.own[script].get(experiment, ())
        numbers = self.other_numbers.get(variant, ())
        places = [f"output_dir={self.output_dir}", f"data_dir={self.data_dir}"]
        return [*replaced, *self.also[script], *own, *numbers, *places]


def read_scales(path: Path = SCALES) -> dict[str, Scale]:
    """The scales by name; raises `UserError` if one lacks a key or has an unknown one."""
    keys = {field.name for field in fields(Scale)}
    scales = {}
    for name, entry in read_yaml(path).items():
        if entry.keys() != keys:
            differing = ", ".join(sorted(entry.keys() ^ keys))
            raise UserError(f"{path}: {name} has too many or too few keys: {differing}")
        scales[name] = Scale(**entry)
    return scales


def read_lines(script: str) -> dict[str, list[str]]:
    """The overrides of each line of collect.sh, train.sh or eval.sh, by its name."""
    found = {}
    for line in (COMMANDS / f"{script}.sh").read_text(encoding="utf-8").splitlines():
        if line.startswith("cell "):
            _, name, _, _, *overrides = shlex.split(line)
            found[name] = overrides
    return found
