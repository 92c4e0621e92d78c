"""Named commands, from commands/experiments.yaml, and how a scale changes them.

    python -m common.paper.experiments SCRIPT [NAME [OVERRIDE ...]]

lists the names of a script, or prints the command of one and becomes it.
"""

import functools
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from common.foundation.errors import UserError, one_line_errors
from common.settings.config import ROOT, read_yaml

COMMANDS = ROOT / "commands"
SECTIONS = {  # script -> sections of a part that it reads
    "collect": ("all", "collect"),
    "train": ("all", "both", "train"),
    "eval": ("all", "both", "eval"),
    "train_encoder": ("train_encoder",),
}
Part = Mapping[str, Any]


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
    other_numbers: Mapping[str, Part]
    changes: Part
    own: Mapping[str, Part]

    def overrides(self, script: str, name: str) -> list[str]:
        """Overrides that follow the named command at this scale."""
        plain, scaled = settings(script, name), settings(script, name, self)
        changes = {key: value for key, value in scaled.items() if plain.get(key) != value}
        return as_overrides(changes | {"output_dir": self.output_dir, "data_dir": self.data_dir})


def read_scales(path: Path = COMMANDS / "scales.yaml") -> dict[str, Scale]:
    """The scales by name; raises `UserError` if one lacks a key or has an unknown one."""
    keys = {field.name for field in fields(Scale)}
    scales = {}
    for name, entry in read_yaml(path).items():
        if entry.keys() != keys:
            differing = ", ".join(sorted(entry.keys() ^ keys))
            raise UserError(f"{path}: {name} has too many or too few keys: {differing}")
        scales[name] = Scale(**entry)
    return scales


@functools.cache
def _catalogue() -> dict[str, Any]:
    return read_yaml(COMMANDS / "experiments.yaml")


def names(script: str) -> list[str]:
    """Every name that a script knows."""
    found = []
    for name, experiment in _catalogue()["experiments"].items():
        agents = experiment["agents"]
        if script == "collect":
            found += [name] * ("recorded" in experiment["parts"])
        elif script == "train_encoder":
            found += [f"{name}/{kind}" for kind in experiment.get("encoders", ())]
        else:
            for agent, variants in agents.items():
                found.append(f"{name}/{agent}")
                found += [f"{name}/{agent}/{v}" for v in variants if script == "eval"]
    return found


def settings(script: str, name: str, scale: Scale | None = None) -> dict[str, str]:
    """The overrides of a named command by key, as text; at a scale without its folders.

    Raises `UserError` for a name that the script does not know.
    """
    from omegaconf import OmegaConf

    if name not in names(script):
        hint = "without arguments it lists its names"
        raise UserError(f"there is no {name} in commands/{script}.sh; {hint}")
    experiment, chosen, _ = (*name.split("/"), "", "")[:3]
    parts = _parts(script, name, scale)
    merged: dict[str, Any] = {}
    for part in parts:
        for section in SECTIONS[script]:
            merged |= part.get(section, {})
    given = {"cell": name.replace("/", "_"), "run": f"{experiment}_{chosen}", "settings": merged}
    values = OmegaConf.merge(*(part.get("values", {}) for part in parts), given)
    resolved = OmegaConf.to_container(values.settings, resolve=True)
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in resolved.items()
        if value is not None
    }


def _parts(script: str, name: str, scale: Scale | None) -> list[Part]:
    """The parts of a name; what comes later holds."""
    book = _catalogue()
    experiment, chosen, variant = (*name.split("/"), "", "")[:3]
    own = book["experiments"][experiment]
    named = {part: book["parts"][part] for part in own["parts"]} | {experiment: own}
    program = {k: v for k, v in book["scripts"][script].items() if k != "program"}
    parts = [{"values": book["values"], script: program}, *named.values()]
    if chosen:
        parts.append(book["encoders" if script == "train_encoder" else "agents"][chosen])
    variants = [part.get("variants", {}) for part in (book, *named.values())]
    special = [known[variant] for known in variants if variant in known]
    parts += special
    if scale:
        parts += [scale.changes, *(scale.own[part] for part in named if part in scale.own)]
        # The number of objects that a variant is for is the same at every scale.
        parts += [{"values": part.get("values", {})} for part in special]
        parts.append(scale.other_numbers.get(variant, {}))
    return parts


def as_overrides(settings: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


def command(script: str, name: str) -> list[str]:
    """The whole command of a name."""
    program = _catalogue()["scripts"][script]["program"]
    return ["python", *program, *as_overrides(settings(script, name))]


def main() -> None:
    script, *arguments = sys.argv[1:]
    with one_line_errors():
        if not arguments:
            print(*names(script), sep="\n")
            return
        line = [*command(script, arguments[0]), *arguments[1:]]
    print(shlex.join(line), flush=True)
    os.execvp(line[0], line)


if __name__ == "__main__":
    main()
