"""Episodes per minute of evaluation against environments and workers, split into its parts.

    python -m benchmarks.evaluate
    python -m benchmarks.evaluate --envs 1 20 --workers 2 --steps 200

An untrained agent for three cubes acts; its networks are the paper's, which is all that counts.
`plain` is one environment in a loop. Starting processes, imports and resets are left out: time runs
from the first step of all environments to the last. Episodes are counted as of 1,000 steps.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch

from agents.base import Timestep
from benchmarks.measure import Row, Table, arguments, publish
from benchmarks.subjects import TINY
from common.data.normaliser import Normaliser
from common.evaluation.environments import EnvPool, Start
from common.evaluation.evaluate import evaluate
from common.foundation.device import resolve_device
from common.foundation.errors import one_line_errors
from common.runs.setup import Setup, make_setup, observe
from common.settings.config import Config, compose
from envs.make import make_world

EPISODE = 1000  # steps


class Clock:
    """Seconds spent in some functions, after the environments have started."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.began = self.ended = 0.0

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = function(*args, **kwargs)
            self.ended = time.perf_counter()
            self.seconds[name] = self.seconds.get(name, 0.0) + self.ended - began
            return result

        return call

    def exchanged(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`EnvPool.exchange`; starts of episodes begin the measurement anew."""
        timed = self.timed("physics", function)

        def call(pool: EnvPool, orders: dict[int, Any]) -> Any:
            if any(isinstance(order, Start) for order in orders.values()):
                result = function(pool, orders)
                self.seconds.clear()
                self.began = time.perf_counter()
                return result
            return timed(pool, orders)

        return call


@contextlib.contextmanager
def clocked(agent: Any) -> Iterator[Clock]:
    """Measures where an evaluation of `agent` spends its time."""
    clock = Clock()
    with contextlib.ExitStack() as stack:
        exchange = clock.exchanged(EnvPool.exchange)
        stack.enter_context(mock.patch.object(EnvPool, "exchange", exchange))
        for name, method in (("act", "act"), ("diffusion", "propose")):
            timed = clock.timed(name, getattr(agent, method))
            stack.enter_context(mock.patch.object(agent, method, timed))
        yield clock


def batched(setup: Setup, envs: int, workers: int, seed: int) -> dict[str, float]:
    """One episode in each of `envs` environments: seconds of a step of all, by part."""
    with clocked(setup.agent) as clock:
        evaluate(
            setup.agent,
            setup.world,
            setup.observation,
            setup.normaliser,
            episodes=envs,
            seed=seed,
            num_envs=envs,
            workers=workers,
        )
    policy = clock.seconds["act"] - clock.seconds.get("diffusion", 0.0)
    return {
        "physics": clock.seconds["physics"],
        "policy": policy,
        "diffusion": clock.seconds.get("diffusion", 0.0),
        "all": clock.ended - clock.began,
    }


@torch.inference_mode()
def sequential(setup: Setup, seed: int) -> float:
    """Seconds of one episode, one environment in a plain loop."""
    env = setup.world.make()
    _, info = env.reset(seed=seed, options={"render_goal": False})
    generator = torch.Generator().manual_seed(seed)
    identities = setup.observation.identities(1, generator)

    def see(name: str) -> torch.Tensor:
        raw = torch.from_numpy(info[name]).unsqueeze(0)
        return setup.normaliser(setup.observation.encode(raw, identities))

    goal = see("state_goal")
    memory = setup.agent.begin(goal[0]).unsqueeze(0)
    began = time.perf_counter()
    for step in range(setup.world.max_episode_steps):
        count = torch.tensor([step])
        timestep = Timestep(see("state_obs"), goal, count, memory, [generator])
        action, memory = setup.agent.act(timestep)
        _, _, _, _, info = env.step(action[0].numpy())
    seconds = time.perf_counter() - began
    env.close()
    return seconds


def prepare(options: argparse.Namespace, subgoals: bool, device: torch.device) -> Setup:
    """An untrained agent, normaliser and world."""
    changes = TINY if options.tiny else ()
    config: Config = compose(
        [
            "env_kwargs.manipobj.num_cubes=3",
            f"max_episode_steps={options.steps}",
            f"sgiql.disable_subgoal={str(not subgoals).lower()}",
            f"sgiql.n_diffusion_samples={options.candidates}",
            *changes,
        ]
    )
    world = make_world(config)
    return make_setup(config, world, observe(config, world), Normaliser.none(device))


def measure(options: argparse.Namespace, device: torch.device) -> list[Table]:
    table = Table(f"Episodes per minute of {EPISODE} steps, and milliseconds of a step by part")
    for subgoals in (False, True):
        setup = prepare(options, subgoals, device)
        plain = statistics.median(sequential(setup, seed) for seed in range(options.repeats))
        cases = [(e, w) for e in options.envs for w in options.workers if w <= e]
        rows = {case: [] for case in cases}
        for seed in range(options.repeats):
            for case in cases:
                rows[case].append(batched(setup, *case, seed))
        table.rows.append(_row(subgoals, 1, None, {"all": plain}, plain, options))
        for (envs, workers), runs in rows.items():
            middle = {part: statistics.median(run[part] for run in runs) for part in runs[0]}
            table.rows.append(_row(subgoals, envs, workers, middle, plain, options))
    return [table]


def _row(
    subgoals: bool,
    envs: int,
    workers: int | None,
    seconds: dict[str, float],
    plain: float,
    options: argparse.Namespace,
) -> Row:
    row: Row = {
        "agent": "EC-SGIQL" if subgoals else "EC-IQL",
        "environments": envs,
        "workers": "plain loop" if workers is None else workers,
        "episodes/min": 60 * envs * options.steps / seconds["all"] / EPISODE,
        "speed-up": plain * envs / seconds["all"],
    }
    for part in ("physics", "policy", "diffusion"):
        row[f"{part}, ms"] = seconds[part] / options.steps * 1e3 if part in seconds else None
    return row


def main() -> None:
    options = arguments(
        __doc__,
        envs={"type": int, "nargs": "+", "default": [1, 5, 20]},
        workers={"type": int, "nargs": "+", "default": [1, 2]},
        steps={"type": int, "default": 30, "help": "of an episode; subgoals are drawn every 25"},
        candidates={"type": int, "default": 256, "help": "subgoals to choose from"},
        tiny={"action": "store_true", "help": "small networks: only to see that it runs"},
    )
    publish("evaluate", options, measure(options, resolve_device(options.device)))


if __name__ == "__main__":
    with one_line_errors():
        main()
