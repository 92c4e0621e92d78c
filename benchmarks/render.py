"""Milliseconds of a frame for each environment and quality, and by how much pixels differ.

    python -m benchmarks.render

One camera, 128 x 128 pixels, the same state in all qualities. Differences are against `full`, on
the scale 0 to 255, means over pixels and colours.
"""

import argparse
from functools import partial

import numpy as np

from benchmarks.measure import Row, Table, arguments, compare, publish, ratios
from benchmarks.subjects import WORLDS, has_qualities, make_benchmark_world
from common.foundation.errors import UserError, one_line_errors
from envs.rendering import QUALITIES, rendering_problem

VISIBLE = 8  # levels of 255 by which a colour has to differ to count as another


def frames(title: str, steps: int, options: argparse.Namespace) -> list[Row]:
    """Time and difference of an environment's qualities."""
    qualities = list(QUALITIES) if has_qualities(title) else ["full"]
    envs = {}
    for quality in qualities:
        envs[quality] = make_benchmark_world(title, 1000, fast=quality == "fast").make(pixels=False)
        envs[quality].reset(seed=0)
        envs[quality].action_space.seed(0)
        for _ in range(steps):
            envs[quality].step(envs[quality].action_space.sample())
    draw = {quality: partial(env.unwrapped.frame) for quality, env in envs.items()}
    times = compare(draw, options.repeats, warmup=1)
    faster = ratios(times, "full")
    full = draw["full"]().astype(int)
    rows: list[Row] = []
    for quality in qualities:
        difference = np.abs(draw[quality]().astype(int) - full)
        rows.append(
            {
                "environment": title,
                "quality": quality,
                "ms": times[quality].wall * 1e3,
                "CPU ms": times[quality].cpu * 1e3,
                "speed-up": faster[quality],
                "mean difference": float(difference.mean()),
                "pixels that differ visibly": float((difference.max(-1) > VISIBLE).mean()),
            }
        )
    for env in envs.values():
        env.close()
    return rows


def main() -> None:
    options = arguments(
        __doc__,
        worlds={"nargs": "+", "choices": tuple(WORLDS), "default": list(WORLDS)},
        steps={"type": int, "default": 10, "help": "random steps before the frame"},
    )
    if problem := rendering_problem():
        raise UserError(problem)
    table = Table("Drawing a frame")
    for title in options.worlds:
        table.rows.extend(frames(title, options.steps, options))
    publish("render", options, [table])


if __name__ == "__main__":
    with one_line_errors():
        main()
