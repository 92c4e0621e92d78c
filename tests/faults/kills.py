"""SIGKILL at random moments: the same command goes on, and ends as if nothing had happened.

A command is first run undisturbed, which tells how long it takes and what it makes. Then it is
started and killed at random moments, several times in a row, run to its end, and compared.
"""

import hashlib
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.runs import checkpoint
from tests.conftest import TINY
from tests.faults.processes import finish, kill_after, orphans, start, temporaries
from tests.faults.report import Tally
from tests.helpers.encoder_folders import dlp_folder

IN_A_ROW = 5  # kills of one run before it may end
FIRST = 0.2  # of the undisturbed time: before, there is nothing but imports
CUBES = ("env_kwargs.manipobj.num_cubes=1", "max_episode_steps=25")
PIECES = (
    "task=pushtetris-v0",
    "env_kwargs.pushtetris.num_objects=1",
    "env_kwargs.pushtetris.render_size=64",
    "max_episode_steps=25",
)
RHYTHM = ("steps=60", "log_freq=4", "checkpoint_freq=6", "eval_freq=20", "num_eval_episodes=2")
AGENTS = {
    "iql": ("agent=iql",),
    "hiql": ("agent=hiql",),
    "sgiql": ("agent=sgiql",),
    "sgiql (AWR)": ("agent=sgiql", "sgiql.subgoal_policy_type=standard"),
    "sgiql, two processes": ("agent=sgiql", "parallel_update=always"),
    "ecdiffuser": (
        "agent=ecdiffuser",
        "ecdiffuser.embed_dim=8",
        "ecdiffuser.h_dim=8",
        "ecdiffuser.n_head=2",
        "ecdiffuser.n_layers=1",
    ),
}
ENCODER = (
    "device=cpu",
    "threads=1",
    "train_dataset_name=images",
    "encoder.image_size=64",
    "encoder.batch_size=4",
    "encoder.updates_per_epoch=6",
    "encoder.log_freq=4",
    "encoder.checkpoint_freq=4",
    "encoder.read_workers=1",
    "encoder.num_pictures=1",
)
ENCODERS = {
    "vqvae": (
        "encoder.kind=vqvae",
        "encoder.vqvae.epochs=3",
        "encoder.vqvae.lpips=null",
        "encoder.vqvae.embed_dim=4",
        "encoder.vqvae.n_embed=8",
        "encoder.vqvae.z_channels=32",
        "encoder.vqvae.base_ch=32",
        "encoder.vqvae.ch_mult=[1,1,1]",
        "encoder.vqvae.num_res_blocks=1",
        "encoder.vqvae.attn_resolutions=[16]",
    ),
    "dlp": (
        "encoder.kind=dlp",
        "encoder.dlp.epochs=3",
        "encoder.dlp.n_kp_enc=4",
        "encoder.dlp.prior_channels=[4,8,12]",
        "encoder.dlp.enc_channels=[4,8,12]",
    ),
}


@dataclass(frozen=True)
class Job:
    """A command to kill.

    Attributes:
        arguments: of python, given the folder that it works in.
        result: what it made there, to be compared.
        needs: what is copied into that folder before it starts.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    result: Callable[[Path], dict[str, Any]]
    needs: tuple[Path, ...] = ()

    def prepare(self, folder: Path) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in self.needs:
            shutil.copytree(path, folder / path.name)
        return folder


def collection(name: str, *overrides: str, workers: int = 4) -> Job:
    """`collect.py` of eight episodes."""
    own = ("dataset_name=made", "num_collect_episodes=8", f"num_workers={workers}", *overrides)
    return Job(
        f"collect.py, {name}, {workers} workers",
        lambda folder: ["collect.py", *own, f"data_dir={folder}"],
        lambda folder: content(folder / "made"),
    )


def training(name: str, data: Path) -> Job:
    """`train.py` of one agent on small data."""
    own = (*TINY, *RHYTHM, *AGENTS[name], f"data_dir={data}", "run_name=run")
    return Job(
        f"train.py, {name}",
        lambda folder: ["train.py", *own, f"output_dir={folder}"],
        lambda folder: run_result(folder / "train" / "run", ("last", "best"), ("train", "eval")),
    )


def encoder_training(name: str, data: Path) -> Job:
    """`visual_encoders.train`."""
    own = (*ENCODER, *ENCODERS[name], f"data_dir={data}", "run_name=run")
    return Job(
        f"visual_encoders.train, {name}",
        lambda folder: ["-m", "visual_encoders.train", *own, f"output_dir={folder}"],
        lambda folder: run_result(folder / "encoders" / "run", ("last",), ("train", "valid")),
    )


def latents(data: Path, encoder: Path) -> Job:
    """`visual_encoders.encode`."""
    own = ("obs=dlp", f"rep_model_checkpoint={encoder}", "rep_model_device=cpu", "num_workers=2")
    return Job(
        "visual_encoders.encode, dlp",
        lambda folder: ["-m", "visual_encoders.encode", "images", *own, f"data_dir={folder}"],
        lambda folder: content(next(folder.glob("images-dlp-*"))),
        (data / "images",),
    )


def evaluation(run: Path) -> Job:
    """`evaluate.py`; each start makes a folder of its own, the last one counts."""
    own = (f"eval_checkpoint={run}", "num_eval_episodes=4", "num_workers=2", "save_video=false")

    def result(folder: Path) -> dict[str, Any]:
        (newest,) = sorted(folder.glob("eval/*/metrics.json"))[-1:]
        others = [path for path in folder.glob("eval/*") if not (path / "metrics.json").exists()]
        rows = (newest.parent / "episodes.csv").read_bytes()
        return {"episodes.csv": rows, "unfinished folders": len(others)}

    return Job("evaluate.py", lambda folder: ["evaluate.py", *own, f"output_dir={folder}"], result)


def merging(shards: list[Path]) -> Job:
    """`datasets.merge`."""
    names = [str(shard) for shard in shards]
    return Job(
        "datasets.merge",
        lambda folder: ["-m", "datasets.merge", "made", *names, "--data-dir", str(folder)],
        lambda folder: content(folder / "made"),
    )


def content(folder: Path) -> dict[str, Any]:
    """Every file of a folder by its hash; a header without the command that named the folder."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (".lock", "header.json"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(folder))] = digest
    return found


def run_result(folder: Path, checkpoints: tuple[str, ...], logs: tuple[str, ...]) -> dict[str, Any]:
    """Metrics byte for byte, and tensors bit for bit."""
    found: dict[str, Any] = {name: (folder / f"{name}.csv").read_bytes() for name in logs}
    for name in checkpoints:
        tensors, meta = checkpoint.load(folder / f"{name}.safetensors")
        found[f"{name} step"] = meta["step"]
        found |= {f"{name} {key}": tensor.numpy().tobytes() for key, tensor in tensors.items()}
    return found


def run(job: Job, kills: int, place: Path, seed: int = 0) -> Tally:
    """Kill a command `kills` times in all while it runs."""
    tally = Tally(f"SIGKILL at a random moment of {job.name}")
    whole = job.prepare(place / "whole")
    began = time.monotonic()
    code, output = finish(job.arguments(whole))
    seconds = time.monotonic() - began
    if code:
        tally.add("lost", f"undisturbed, it ended with {code}: {output[-300:]}")
        return tally
    expected, rng, runs = job.result(whole), random.Random(seed), 0
    while tally.tried < kills:
        folder, killed, problem = job.prepare(place / "killed"), 0, ""
        while killed < min(IN_A_ROW, kills - tally.tried):
            process = start(job.arguments(folder))
            running = kill_after(process, rng.uniform(FIRST, 1.0) * seconds)
            left = orphans(process.pid)
            problem = problem or (f"processes go on: {left}" if left else "")
            if not running:
                break  # it came to its end before
            killed += 1
        problem = problem or compare(job, folder, expected)
        for _ in range(max(killed, bool(problem))):
            tally.expect(not problem, problem)
        runs += 1
    tally.note = f"{runs} runs"
    return tally


def compare(job: Job, folder: Path, expected: dict[str, Any]) -> str:
    """Run the command to its end; what differs from the undisturbed one, or ""."""
    code, output = finish(job.arguments(folder))
    if code:
        return f"it ended with {code}: {output[-300:]}"
    if temporaries(folder):
        return f"temporary files are left: {temporaries(folder)}"
    found = job.result(folder)
    differing = [name for name in expected.keys() | found if expected.get(name) != found.get(name)]
    return f"other results: {sorted(differing)[:5]}" if differing else ""


def data_jobs(place: Path) -> list[Job]:
    """Commands that make datasets, and latents of one."""
    data = make_data(place / "data")
    return [
        collection("cubes from state", *CUBES, "env_kwargs.manipobj.mode=data_collection"),
        collection("images", *PIECES, "obs=rgb", "env_kwargs.pushtetris.mode=data_collection"),
        latents(data, dlp_folder(data / "dlp")),
        merging([data / "shard-1", data / "shard-2"]),
    ]


def agent_jobs(place: Path) -> list[Job]:
    """Trainings of agents, and an evaluation."""
    data = make_data(place / "data")
    return [*(training(name, data) for name in AGENTS), evaluation(trained(data))]


def encoder_jobs(place: Path) -> list[Job]:
    """Trainings of encoders."""
    data = make_data(place / "data")
    return [encoder_training(name, data) for name in ENCODERS]


def make_data(folder: Path) -> Path:
    """The datasets `tiny` (cubes), `images` and two shards; made once."""
    made = {
        "tiny": (*CUBES, "env_kwargs.manipobj.mode=data_collection"),
        "images": (*PIECES, "obs=rgb", "env_kwargs.pushtetris.mode=data_collection"),
    }
    made |= {f"shard-{seed}": (*made["tiny"], f"seed={seed}") for seed in (1, 2)}
    for name, overrides in made.items():
        own = (f"dataset_name={name}", "num_collect_episodes=10", "num_workers=1")
        must(["collect.py", *overrides, *own, f"data_dir={folder}"])
    return folder


def trained(data: Path) -> Path:
    """A run to evaluate."""
    own = (*TINY, *RHYTHM, "agent=sgiql", "run_name=evaluated")
    must(["train.py", *own, f"data_dir={data}", f"output_dir={data}"])
    return data / "train" / "evaluated"


def must(arguments: list[str]) -> None:
    """Run a command that prepares something."""
    code, output = finish(arguments)
    if code:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {code}: {output[-2000:]}")
