"""Updates per second of agents, by variant and by part of an update.

    python -m benchmarks.train --device cuda --variants eager compiled graphs
    python -m benchmarks.train --subjects preset --variants plain eager

Variants: plain (one call per critic, see `tests.plain.agent`), eager, side-by-side (critics
and policies in two processes, CPU only), autocast (bfloat16), compiled (takes minutes on CPU),
graphs and graph-of-8 (CUDA only), tf32. `speed-up` is against the first variant, in processor time
on CPU, but for side-by-side, whose second process that leaves out: in wall time.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks.measure import (
    Row,
    Table,
    Timing,
    Work,
    arguments,
    compare,
    publish,
)
from benchmarks.subjects import SUBJECTS, TINY, Subject, made_up
from common.data.draws import Draws
from common.foundation.device import limited_threads, resolve_device
from common.foundation.errors import UserError, one_line_errors
from common.training.acceleration import EAGER, Acceleration
from common.training.graphs import GraphUpdates
from common.training.pipelined import PipelinedUpdates
from common.training.updates import Updates
from tests.plain.agent import PlainAgent

SIDE_BY_SIDE = "side-by-side"
VARIANTS = (
    "plain",
    "eager",
    SIDE_BY_SIDE,
    "autocast",
    "compiled",
    "tf32",
    "graphs",
    "graph-of-8",
)
ON_CUDA = ("tf32", "graphs", "graph-of-8")
GRAPH_UPDATES = 8
SIDE_UPDATES = 20  # of a repetition, at whose end it waits for the other process
ACCELERATION = {
    "eager": EAGER,
    "autocast": Acceleration(autocast=True),
    "compiled": Acceleration(compile=True),
    "tf32": Acceleration(compile=True, tf32=True),
    "graphs": Acceleration(compile=True, tf32=True, cudagraphs=True),
    "graph-of-8": Acceleration(compile=True, tf32=True, cudagraphs=True),
}
ROWS, LENGTH = 100_000, 400


@dataclass
class Runner:
    """Updates of one variant, counted on."""

    update: Callable[[int], object]
    per_call: int = 1
    threads: int = 0  # of this process; 0 = as they are
    tf32: bool = False  # which is a switch of the process, so it is set for each call
    step: int = 0

    def __call__(self) -> None:
        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        with limited_threads(self.threads):
            for _ in range(self.per_call):
                self.step += 1
                self.update(self.step)


def make_runner(
    variant: str, subject: Subject, changes: tuple[str, ...], device: torch.device
) -> Runner:
    """An agent of its own that `variant` updates on made-up data."""
    config = subject.config(*changes)
    agent = subject.agent(config, device)
    buffer = made_up(subject.spec, ROWS, LENGTH, device)
    draws = Draws(buffer, config.batch_size, config.seed, agent.wants)
    if variant == "plain":
        other = PlainAgent(agent)

        def update(step: int) -> None:
            batch, generator = draws(step)
            other.update(batch, agent.draw_noise(batch, generator))

        return Runner(update)
    if variant == SIDE_BY_SIDE:
        return _side_by_side(agent, draws)
    acceleration = ACCELERATION[variant]
    if variant == "graph-of-8":
        updates = GraphUpdates(agent, draws, {}, acceleration, GRAPH_UPDATES)
        return Runner(updates.run, per_call=GRAPH_UPDATES, tf32=acceleration.tf32)
    return Runner(Updates(agent, draws, {}, acceleration).run, tf32=acceleration.tf32)


def _side_by_side(agent: Any, draws: Draws) -> Runner:
    """Updates in two processes, each with half of the threads."""
    before = torch.get_num_threads()
    threads = max(1, before // 2)
    updates = PipelinedUpdates(agent, draws, {}, threads)
    torch.set_num_threads(before)

    def update(step: int) -> None:
        updates.run(step)
        if step % SIDE_UPDATES == 0:
            updates.sums()

    return Runner(update, SIDE_UPDATES, threads)


def parts(subject: Subject, changes: tuple[str, ...], device: torch.device) -> dict[str, Work]:
    """The parts of an eager update, each to be repeated by itself."""
    config = subject.config(*changes)
    agent = subject.agent(config, device)
    buffer = made_up(subject.spec, ROWS, LENGTH, device)
    draws = Draws(buffer, config.batch_size, config.seed, agent.wants)
    batch, generator = draws(1)
    noise = agent.draw_noise(batch, generator)

    def minimise(name: str, *inputs: Any) -> Work:
        loss = getattr(agent, f"{name}_loss")
        return lambda: agent.learners[name].step(loss(batch, *inputs)[0])

    works = {"sampling": lambda: draws(1), "V": minimise("value"), "Q": minimise("critic")}
    works["policy"] = minimise("policy")
    if "subgoal" in agent.learners:
        works["subgoal policy"] = minimise("subgoal", noise)
    critic = agent.learners["critic"].flat.detach()
    works["target update"] = lambda: agent.target_flat.lerp_(critic, agent.settings.tau)
    return works


def measure(options: argparse.Namespace, device: torch.device) -> list[Table]:
    changes = TINY if options.tiny else ()
    speeds = Table("Updates per second")
    split = Table("Milliseconds of an eager update, by part")
    for name in options.subjects:
        subject = SUBJECTS[name]
        runners = {v: make_runner(v, subject, changes, device) for v in options.variants}
        timings = compare(runners, options.repeats, options.warmup, device)
        base = next(iter(options.variants))
        for variant, timing in timings.items():
            times = runners[variant].per_call
            done = replace(timing, wall=timing.wall / times, cpu=timing.cpu / times)
            speeds.rows.append(_row(subject, variant, done, timings[base], device))
        torch.set_float32_matmul_precision("highest")
        works = compare(parts(subject, changes, device), options.repeats, options.warmup, device)
        cells: Row = {"subject": subject.title}
        for part in ("sampling", "V", "Q", "policy", "subgoal policy", "target update"):
            cells[part] = works[part].wall * 1e3 if part in works else None
        split.rows.append(cells)
    return [speeds, split]


def _row(subject: Subject, variant: str, timing: Timing, base: Timing, device: torch.device) -> Row:
    on_wall = device.type == "cuda" or variant == SIDE_BY_SIDE
    return {
        "subject": subject.title,
        "variant": variant,
        "updates/s": 1 / timing.wall,
        "CPU s/update": None if variant == SIDE_BY_SIDE else timing.cpu,
        "speed-up": base.wall / timing.wall if on_wall else base.cpu / timing.cpu,
    }


def main() -> None:
    options = arguments(
        __doc__,
        subjects={"nargs": "+", "choices": tuple(SUBJECTS), "default": list(SUBJECTS)},
        variants={"nargs": "+", "choices": VARIANTS, "default": ["plain", "eager", "autocast"]},
        warmup={"type": int, "default": 4, "help": "rounds that do not count"},
        tiny={"action": "store_true", "help": "small networks: only to see that it runs"},
        name={"default": "train", "help": "of the JSON file"},
    )
    device = resolve_device(options.device)
    for wrong in options.variants:
        if wrong in ON_CUDA and device.type != "cuda":
            raise UserError(f"--variants {wrong} needs a CUDA device, and the device is {device}")
        if wrong == SIDE_BY_SIDE and device.type != "cpu":
            raise UserError(f"--variants {wrong} is for --device cpu, and the device is {device}")
    publish(options.name, options, measure(options, device))


if __name__ == "__main__":
    with one_line_errors():
        main()
