"""How cost grows with entities N, candidates M, batch size and environments; nothing is trained.

    python -m benchmarks.growth

Time and operations of matrix products stand against those of the first row of each group.
Projections and MLPs grow with N, pairs of attention with N^2, everything else in proportion. Growth
with rows of the dataset is in `benchmarks.sample`.
"""

import argparse
from collections.abc import Callable

import torch

from benchmarks.measure import Table, Work, arguments, compare, count_flops, publish
from benchmarks.subjects import SUBJECTS, TINY, Subject, entities, made_up
from common.data.draws import Draws
from common.foundation.device import resolve_device
from common.foundation.errors import one_line_errors

FEATURES = 15
BATCH, ENVIRONMENTS, CANDIDATES = 128, 4, 64  # while another thing grows


def update(count: int, batch: int, changes: tuple[str, ...], device: torch.device) -> Work:
    """An update on sets of `count` entities."""
    subject = Subject("", entities(count, FEATURES), SUBJECTS["sgiql-3-cubes"].settings)
    agent = subject.agent(subject.config(*changes), device)
    draws = Draws(made_up(subject.spec, 20_000, 400, device), batch, 0, agent.wants)

    def work() -> None:
        drawn, generator = draws(1)
        agent.update(drawn, agent.draw_noise(drawn, generator))

    return work


def decision(
    environments: int, candidates: int, changes: tuple[str, ...], device: torch.device
) -> Work:
    """New subgoals for some environments from one call."""
    subject = SUBJECTS["sgiql-3-cubes"]
    changes = (*changes, f"sgiql.n_diffusion_samples={candidates}")
    agent = subject.agent(subject.config(*changes), device)
    obs, goal = torch.randn(2, environments, *subject.spec.shape, device=device)
    generators = [torch.Generator().manual_seed(i) for i in range(environments)]
    return lambda: agent.propose(obs, goal, generators)


def measure(options: argparse.Namespace, device: torch.device) -> list[Table]:
    changes = TINY if options.tiny else ()
    rest = changes, device
    groups: dict[str, tuple[list[int], Callable[[int], Work]]] = {
        "entities N of an update": (options.entities, lambda n: update(n, BATCH, *rest)),
        "batch size of an update": (options.batches, lambda n: update(4, n, *rest)),
        "candidates M of a decision": (options.candidates, lambda n: decision(1, n, *rest)),
        "environments of a decision": (
            options.environments,
            lambda n: decision(n, CANDIDATES, *rest),
        ),
    }
    table = Table("Milliseconds against what grows, and operations of matrix products")
    for title, (sizes, make) in groups.items():
        works = {str(size): make(size) for size in sizes}
        flops = [count_flops(work) for work in works.values()]
        times = list(compare(works, options.repeats, warmup=1, device=device).values())
        for size, time, operations in zip(sizes, times, flops, strict=True):
            table.rows.append(
                {
                    "what grows": title,
                    "to": size,
                    "ms": time.wall * 1e3,
                    "CPU ms": time.cpu * 1e3,
                    "GFLOP": operations / 1e9,
                    "time x the first": time.cpu / times[0].cpu,
                    "GFLOP x the first": operations / flops[0],
                }
            )
    return [table]


def main() -> None:
    options = arguments(
        __doc__,
        entities={"type": int, "nargs": "+", "default": [1, 2, 4, 8, 12]},
        batches={"type": int, "nargs": "+", "default": [64, 128, 256, 512]},
        candidates={"type": int, "nargs": "+", "default": [16, 64, 256, 512]},
        environments={"type": int, "nargs": "+", "default": [1, 5, 10, 20]},
        tiny={"action": "store_true", "help": "small networks: only to see that it runs"},
    )
    publish("growth", options, measure(options, resolve_device(options.device)))


if __name__ == "__main__":
    with one_line_errors():
        main()
