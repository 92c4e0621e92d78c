"""SIGKILL at random moments: the same command goes on, and ends as if nothing had happened.

A command is first run undisturbed, which tells how long it takes and what it makes. Then it is
started and killed at random moments, several times in a row, run to its end, and compared.
"""

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults import commands
from tests.faults.commands import section
from tests.faults.processes import emptied, finish, kill_after, orphans, start, temporaries
from tests.faults.report import Tally
from tests.helpers.encoder_folders import dlp_folder

IN_A_ROW = 5  # kills of one run before it may end
FIRST = 0.2  # of the undisturbed time: before, there is nothing but imports
AGENTS = {
    "iql": ("agent=iql",),
    "hiql": ("agent=hiql",),
    "sgiql": ("agent=sgiql",),
    "sgiql (AWR)": ("agent=sgiql", "sgiql.subgoal_policy_type=standard"),
    "sgiql, two processes": ("agent=sgiql", "parallel_update=always"),
    "ecdiffuser": (
        "agent=ecdiffuser",
        *section("ecdiffuser", embed_dim=8, h_dim=8, n_head=2, n_layers=1),
    ),
}
ENCODER = (
    "device=cpu",
    "threads=1",
    "train_dataset_name=images",
    *section("encoder", image_size=64, batch_size=4, read_workers=1, num_pictures=1),
    *section("encoder", updates_per_epoch=6, log_freq=4, checkpoint_freq=4),
)
ENCODERS = {
    "vqvae": (
        "encoder.kind=vqvae",
        *section("encoder.vqvae", epochs=3, lpips="null", embed_dim=4, n_embed=8, z_channels=32),
        *section("encoder.vqvae", base_ch=32, ch_mult="[1,1,1]", num_res_blocks=1),
        "encoder.vqvae.attn_resolutions=[16]",
    ),
    "dlp": (
        "encoder.kind=dlp",
        *section("encoder.dlp", epochs=3, n_kp_enc=4),
        *section("encoder.dlp", prior_channels="[4,8,12]", enc_channels="[4,8,12]"),
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
        emptied(folder)
        for path in self.needs:
            shutil.copytree(path, folder / path.name)
        return folder


def collection(name: str, *overrides: str) -> Job:
    """`collect.py` of eight episodes."""
    return Job(
        f"collect.py, {name}, 4 workers",
        lambda folder: commands.collecting(folder, "made", 8, *overrides, "num_workers=4"),
        lambda folder: commands.content(folder / "made"),
    )


def data_jobs(place: Path) -> list[Job]:
    """Commands that make datasets, and latents of one."""
    data = commands.make_data(place / "data")
    encoder = dlp_folder(data / "dlp")
    own = ("obs=dlp", f"rep_model_checkpoint={encoder}", "rep_model_device=cpu", "num_workers=2")
    encoding = Job(
        "visual_encoders.encode, dlp",
        lambda folder: ["-m", "visual_encoders.encode", "images", *own, f"data_dir={folder}"],
        lambda folder: commands.content(next(folder.glob("images-dlp-*"))),
        (data / "images",),
    )
    shards = [str(data / f"shard-{seed}") for seed in (1, 2)]
    merging = Job(
        "datasets.merge",
        lambda folder: ["-m", "datasets.merge", "made", *shards, "--data-dir", str(folder)],
        lambda folder: commands.content(folder / "made"),
    )
    cubes, images = ("cubes from state", *commands.CUBE_STATES), ("images", *commands.PIECE_IMAGES)
    return [collection(*cubes), collection(*images), encoding, merging]


def agent_jobs(place: Path) -> list[Job]:
    """Trainings of agents, and an evaluation."""
    data = commands.make_data(place / "data")
    commands.must(commands.training(data, data, "agent=sgiql"))
    trainings = [
        Job(
            f"train.py, {name}",
            lambda folder, own=own: commands.training(data, folder, *own),
            lambda folder: commands.run_content(folder / "train" / "run"),
        )
        for name, own in AGENTS.items()
    ]

    def evaluated(folder: Path) -> dict[str, Any]:
        """Each start makes a folder of its own; the last one counts."""
        (newest,) = sorted(folder.glob("eval/*/metrics.json"))[-1:]
        others = [path for path in folder.glob("eval/*") if not (path / "metrics.json").exists()]
        rows = (newest.parent / "episodes.csv").read_bytes()
        return {"episodes.csv": rows, "unfinished folders": len(others)}

    run = data / "train" / "run"
    evaluation = Job(
        "evaluate.py", lambda folder: commands.evaluating(run, folder, 4, 2), evaluated
    )
    return [*trainings, *online_jobs(), evaluation]


def online_jobs() -> list[Job]:
    """Trainings of agents that act while they learn; all their episodes are compared, too."""

    def made(folder: Path) -> dict[str, Any]:
        run = folder / "train" / "run"
        return commands.run_content(run) | commands.content(run / "experience")

    return [
        Job(f"train.py, {name}", lambda folder, own=own: commands.acting(folder, *own), made)
        for name, own in {"td3": (), "td3, overlapped": ("online.overlap=true",)}.items()
    ]


def encoder_jobs(place: Path) -> list[Job]:
    """Trainings of encoders."""
    shared = (*ENCODER, f"data_dir={commands.make_data(place / 'data')}", "run_name=run")
    command = ["-m", "visual_encoders.train", *shared]
    return [
        Job(
            f"visual_encoders.train, {name}",
            lambda folder, own=own: [*command, *own, f"output_dir={folder}"],
            lambda folder: commands.run_content(
                folder / "encoders" / "run", ("last",), ("train", "valid")
            ),
        )
        for name, own in ENCODERS.items()
    ]


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
