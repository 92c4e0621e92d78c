"""Small commands of every kind, and contents of what they make."""

import hashlib
from pathlib import Path
from typing import Any

from common.runs import checkpoint
from tests.conftest import TINY
from tests.faults.processes import finish


def section(name: str, **values: Any) -> tuple[str, ...]:
    """Overrides of a section of the settings."""
    return tuple(f"{name}.{key}={value}" for key, value in values.items())


CUBES = ("env_kwargs.manipobj.num_cubes=1", "max_episode_steps=25")
PIECES = (
    "task=pushtetris-v0",
    *section("env_kwargs.pushtetris", num_objects=1, render_size=64),
    "max_episode_steps=25",
)
CUBE_STATES = (*CUBES, "env_kwargs.manipobj.mode=data_collection")
PIECE_IMAGES = (*PIECES, "obs=rgb", "env_kwargs.pushtetris.mode=data_collection")
ACTING = (  # and learning from it: episodes of eight steps, two at once
    *("task=pushing-v0", "obs=state", "agent=td3", "device=cpu", "threads=1", "batch_size=8"),
    *("max_episode_steps=5", "num_workers=1", "num_video_episodes=0"),
    *section("online", envs_per_cycle=2, max_episode_steps=8, warmup_episodes=2),
    *section("online", replay_transitions=48),
    *section("td3", h_dim=8, random_episodes=2),
)
RHYTHM = ("steps=60", "log_freq=4", "checkpoint_freq=6", "eval_freq=20", "num_eval_episodes=2")


def collecting(folder: Path, name: str, episodes: int, *overrides: str) -> list[str]:
    """`collect.py` into a data folder, by one worker unless overridden."""
    own = (f"dataset_name={name}", f"num_collect_episodes={episodes}", "num_workers=1")
    return ["collect.py", *own, *overrides, f"data_dir={folder}"]


def training(data: Path, output: Path, *overrides: str) -> list[str]:
    """`train.py` on small data, whose run is called `run` unless overridden."""
    own = (f"data_dir={data}", f"output_dir={output}", "run_name=run")
    return ["train.py", *TINY, *RHYTHM, *own, *overrides]


def acting(output: Path, *overrides: str) -> list[str]:
    """`train.py` of an agent that acts while it learns, likewise."""
    return ["train.py", *ACTING, *RHYTHM, f"output_dir={output}", "run_name=run", *overrides]


def evaluating(run: Path, output: Path, episodes: int, workers: int) -> list[str]:
    """`evaluate.py` of a run."""
    own = (f"num_eval_episodes={episodes}", f"num_workers={workers}", "save_video=false")
    return ["evaluate.py", f"eval_checkpoint={run}", *own, f"output_dir={output}"]


def content(folder: Path) -> dict[str, Any]:
    """Every file of a folder by its hash; a header without the command that named the folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", "header.json")
    }


def run_content(
    folder: Path,
    checkpoints: tuple[str, ...] = ("last", "best"),
    logs: tuple[str, ...] = ("train", "eval"),
) -> dict[str, Any]:
    """Metrics of a run byte for byte, and tensors bit for bit."""
    found: dict[str, Any] = {name: (folder / f"{name}.csv").read_bytes() for name in logs}
    for name in checkpoints:
        tensors, meta = checkpoint.load(folder / f"{name}.safetensors")
        found[f"{name} step"] = meta["step"]
        found |= {f"{name} {key}": tensor.numpy().tobytes() for key, tensor in tensors.items()}
    return found


def must(arguments: list[str]) -> None:
    """Run a command that prepares something."""
    code, output = finish(arguments)
    if code:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {code}: {output[-2000:]}")


def make_data(folder: Path) -> Path:
    """The datasets `tiny` (cubes), `images` and two shards; made once."""
    made = {"tiny": CUBE_STATES, "images": PIECE_IMAGES}
    made |= {f"shard-{seed}": (*CUBE_STATES, f"seed={seed}") for seed in (1, 2)}
    for name, overrides in made.items():
        must(collecting(folder, name, 10, *overrides))
    return folder
