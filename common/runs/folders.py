"""Folders of runs: their names, who may write to them, and the record of how they came about."""

import contextlib
import hashlib
import itertools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

from common.foundation.errors import UserError
from common.foundation.files import check_path, lock, make_folder, read_json, write_json
from common.foundation.messages import keeping_warnings
from common.settings.config import ROOT, Config, identity
from common.settings.inherit import DEFAULT_CHECKPOINT
from common.settings.schema import show

PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "ogbench")
IQL_LATER = ("ema_decay", "action_noise")
# Settings that came later, with what runs did before there were any; they keep their names so.
LATER = {"clip_actions": False, "skip_short_episodes": False}
LATER |= {f"{agent}.{key}": 0.0 for agent in ("iql", "hiql", "sgiql") for key in IQL_LATER}


@dataclass(frozen=True)
class RunKind:
    """Common traits of training runs of agents, or of encoders."""

    folder: str  # where their folders lie, under `output_dir`
    title: Callable[[Config], str]  # the readable part of a folder's name
    identity: Callable[[Config], dict[str, Any]]  # settings by dotted key that make a run


AGENT_RUNS = RunKind(
    "train", lambda config: f"{config.agent}_{config.task}_{config.seed}", identity
)


@dataclass(frozen=True)
class RunFolder:
    """A training run's folder."""

    path: Path
    resumed: bool  # it had been used before
    changes: list[str]  # of settings that do not touch the result ("steps=1000, was 500")


def run_path(config: Config, kind: RunKind = AGENT_RUNS) -> Path:
    """The folder of the training run that these settings make."""
    return Path(config.output_dir) / kind.folder / (config.run_name or train_name(config, kind))


def last_checkpoint(config: Config, kind: RunKind = AGENT_RUNS) -> Path | None:
    """The checkpoint from which the training run that these settings make goes on, if there is one.

    Raises `UserError` if its folder belongs to other settings, or cannot be made for its name.
    """
    path = run_path(config, kind)
    check_path(path, "run_name" if config.run_name else "train_dataset_name, or set run_name")
    stored = path / "config.json"
    if stored.is_file():
        _compare(path, read_json(stored), config, kind)
    last = path / DEFAULT_CHECKPOINT
    return last if last.is_file() else None


@contextlib.contextmanager
def open_run(
    config: Config, machine: Mapping[str, Any] | None = None, kind: RunKind = AGENT_RUNS
) -> Iterator[RunFolder]:
    """Create or reopen the folder of a training run, locked until the block or the process ends.

    The name holds a hash of the settings that decide its results (`kind.identity`), so the same
    command finds its folder and another command never writes to it. `run_name` replaces the name;
    then the settings must be those that the folder was made with. `machine`
    (`common.foundation.device.describe_device`) goes into the record.
    Raises `UserError` if the folder is in use or belongs to other settings.
    """
    path = run_path(config, kind)
    make_folder(path, "run_name")
    with _locked(path), keeping_warnings(path):
        for leftover in path.glob(".*.tmp"):  # of a killed process, on a disk without file locks
            leftover.unlink(missing_ok=True)
        stored_file = path / "config.json"
        resumed = stored_file.exists()
        changes = _compare(path, read_json(stored_file), config, kind) if resumed else []
        write_json(stored_file, config.raw, sealed=True)
        _record(path, machine or {})
        yield RunFolder(path, resumed, changes)


def train_name(config: Config, kind: RunKind = AGENT_RUNS) -> str:
    """The name that the settings give to their training run's folder."""
    return f"{kind.title(config)}_{settings_hash(config, kind)}"


def settings_hash(config: Config, kind: RunKind = AGENT_RUNS) -> str:
    """Eight hexadecimal digits that stand for the settings that decide a run's results."""
    own = {k: v for k, v in kind.identity(config).items() if k not in LATER or v != LATER[k]}
    text = json.dumps(own, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def make_eval_parent(config: Config) -> Path:
    """Create and return the folder of all evaluations.

    Raises `UserError` if that is not possible, or if a folder in it would have too long a name.
    """
    parent = Path(config.output_dir) / "eval"
    check_path(parent / f"{_eval_name(config)}-999", "eval_variant_name")
    return make_folder(parent, "output_dir")


def new_eval_folder(config: Config, record: Mapping[str, Any] | None = None) -> Path:
    """Create and return a folder for one evaluation, never one that exists.

    `record` is the `provenance` of its start.
    """
    parent, name = make_eval_parent(config), _eval_name(config)
    for suffix in itertools.chain([""], (f"-{i}" for i in itertools.count(2))):
        path = parent / f"{name}{suffix}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        write_json(path / "config.json", config.raw, sealed=True)
        write_json(path / "provenance.json", [record or provenance({})])
        return path
    raise AssertionError("unreachable: the suffixes do not end")


def _eval_name(config: Config) -> str:
    variant = f"_{config.eval_variant_name}" if config.eval_variant_name else ""
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"{config.agent}_{config.task}_{config.seed}{variant}_{now}"


def provenance(machine: Mapping[str, Any]) -> dict[str, Any]:
    """A record of the code that runs and its machine, ready for JSON."""
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": sys.argv,
        "git": git_state(),
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in PACKAGES},
        "system": platform.platform(),
        **machine,
    }


def _record(folder: Path, machine: Mapping[str, Any]) -> None:
    """Append this start to `provenance.json`, a list with one entry per start."""
    file = folder / "provenance.json"
    starts = read_json(file) if file.exists() else []
    write_json(file, [*starts, provenance(machine)])


def _locked(folder: Path) -> BinaryIO:
    """A file that locks the folder for this process while it is open."""
    file = open(folder / ".lock", "a+b")  # noqa: SIM115  it stays open as long as the lock is held
    if not lock(file, folder):
        file.seek(0)
        owner = file.read().decode() or "unknown"
        file.close()
        raise UserError(
            f"{folder} is in use by process {owner}; wait for it or stop it, "
            "or set run_name to train the same a second time"
        )
    # A forked child shares the lock, and would hold it on after this process was killed.
    os.register_at_fork(after_in_child=file.close)
    file.truncate(0)
    file.write(str(os.getpid()).encode())
    file.flush()
    return file


def _compare(folder: Path, stored: Mapping[str, Any], config: Config, kind: RunKind) -> list[str]:
    """Refuse settings that make a different run than the stored ones; return the other changes."""
    before, now = LATER | dotted(stored), dotted(json.loads(json.dumps(config.raw)))
    differing = [key for key in now if key not in before or before[key] != now[key]]
    for key in differing:
        if key in kind.identity(config):
            was = show(before[key]) if key in before else "not set"
            raise UserError(
                f"{folder} belongs to a run with {key}: {was}, not {show(now[key])}; "
                "choose another run_name, or give the same settings to continue it"
            )
    changed = (key for key in differing if key in before)
    return [f"{key}={show(now[key])}, was {show(before[key])}" for key in changed]


def dotted(nested: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """The leaves of nested dictionaries by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in nested.items():
        inner = isinstance(value, Mapping)
        leaves |= dotted(value, f"{path}{key}.") if inner else {f"{path}{key}": value}
    return leaves


def git_state(root: Path = ROOT, ignored: str = "") -> dict[str, Any] | None:
    """The commit of this code and if files, but one `ignored`, differ; None outside a checkout."""
    if not (root / ".git").exists():
        return None
    but = ["--", ".", f":!{ignored}"] if ignored else []
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(root, "status", "--porcelain", *but))}
    except (OSError, subprocess.CalledProcessError):
        return None  # git is not installed, or there is no commit yet


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
