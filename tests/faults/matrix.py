"""Every environment with every observation, agent and number of views: it works or says why not.

Networks are tiny and rows are random numbers, so what is tried is whether the parts fit together:
built, two updates, and one short episode in the real environment (or one action, where time is
short).
"""

import functools
import itertools
from dataclasses import dataclass
from pathlib import Path

import torch

from agents.base import Timestep
from common.data.draws import Draws
from common.data.normaliser import Normaliser
from common.evaluation.evaluate import evaluate, prepare_evaluation
from common.runs.setup import make_setup, observe
from common.settings.config import OBSERVATIONS, compose
from common.training.updates import Updates
from envs.make import make_world
from tests.conftest import TINY
from tests.faults.commands import section
from tests.faults.report import Tally, ending
from tests.helpers.agents import CPU
from tests.helpers.encoder_folders import dlp_folder, vqvae_folder
from tests.helpers.updates import make_buffer

SIZE = 64  # pixels
SMALL = (
    *TINY,
    "rep_model_device=cpu",
    "reward=unsupervised",
    "max_episode_steps=2",
    "batch_size=4",
    *section("arch_mlp", h_dim=8, conv_channels="[2,3]"),
    *section("sgiql", n_diffusion_samples=2, n_diffusion_steps=2),
)
WORLDS = {
    "manipobj-v0": section("env_kwargs.manipobj", num_cubes=1, width=SIZE, height=SIZE),
    "pushtetris-v0": section("env_kwargs.pushtetris", num_objects=1, render_size=SIZE),
    "visual-scene-v0": section("env_kwargs.scene", num_cubes=1, width=SIZE, height=SIZE),
    "cube-single-play-v0": ("ogbench=true",),
    "scene-play-v0": ("ogbench=true",),
    "puzzle-3x3-play-v0": ("ogbench=true",),
    "visual-cube-single-play-v0": ("ogbench=true",),
}
AGENTS = {
    "iql": ("agent=iql",),
    "hiql": ("agent=hiql",),
    "sgiql": ("agent=sgiql",),
    "awr": ("agent=sgiql", "sgiql.subgoal_policy_type=standard"),
}


@dataclass(frozen=True)
class Combination:
    """One cell of the matrix."""

    task: str
    views: int
    obs: str
    agent: str

    def overrides(self, encoders: Path) -> list[str]:
        """The settings of it; encoders lie in folders of their kinds."""
        own = [f"task={self.task}", f"obs={self.obs}", f"multiview={self.views == 2}".lower()]
        folder = f"rep_model_checkpoint={encoders / self.obs}"
        return [*SMALL, *own, *WORLDS[self.task], folder, *AGENTS[self.agent]]


def combinations() -> list[Combination]:
    """All of them."""
    return [Combination(*c) for c in itertools.product(WORLDS, (1, 2), OBSERVATIONS, AGENTS)]


def make_encoders(folder: Path) -> Path:
    """Small encoders `dlp` and `vqvae`."""
    dlp_folder(folder / "dlp")
    vqvae_folder(folder / "vqvae", SIZE)
    return folder


@functools.cache
def _world(overrides: tuple[str, ...]) -> tuple:
    """World and observation; agents of one observation share them."""
    config = compose(overrides)
    world = make_world(config)
    return world, observe(config, world)


def attempt(combination: Combination, encoders: Path, act: bool) -> None:
    """Build, update twice, then an episode, or one action; raises what is in the way."""
    overrides = combination.overrides(encoders)
    config = compose(overrides)
    shared = [o for o in overrides if not o.startswith(("agent=", "sgiql.subgoal_policy"))]
    world, observation = _world(tuple(shared))
    setup = make_setup(config, world, observation, Normaliser.none(CPU))
    sizes = world.actions.size, config.gamma, config.done_signal
    buffer = make_buffer(observation.spec, CPU, *sizes)
    updates = Updates(setup.agent, Draws(buffer, config.batch_size, 0, setup.agent.wants), {})
    for step in (1, 2):
        updates.run(step)
    broken = [name for name, total in updates.sums().items() if not torch.isfinite(total)]
    if broken:
        raise ArithmeticError(f"{', '.join(broken)} not finite")
    setup.agent.calibrate(buffer)
    if act:
        prepare_evaluation(config, setup)  # refuses what cannot be evaluated
        parts = setup.agent, world, observation, setup.normaliser
        tasks = config.eval_tasks[:1]
        evaluate(*parts, episodes=1, seed=0, num_envs=1, workers=1, tasks=tasks)
    else:
        obs, generators = buffer.obs[:1], [torch.Generator().manual_seed(0)]
        memory = setup.agent.begin(obs[0]).unsqueeze(0)
        action, _ = setup.agent.act(Timestep(obs, obs, torch.zeros(1), memory, generators))
        if not torch.isfinite(action).all():
            raise ArithmeticError("an action is not finite")


def run(encoders: Path, episodes: bool) -> tuple[Tally, dict[Combination, str]]:
    """Try the whole matrix; returns the reason of each refusal, "" for what works."""
    what = "one episode" if episodes else "one action"
    tally = Tally(f"environment x views x observation x agent: built, two updates, {what}")
    reasons = {}
    for combination in combinations():
        end, text = ending(functools.partial(attempt, combination, encoders, episodes))
        tally.add(end, f"{combination}: {text}")
        refusal = text.replace(f"{encoders}/", "")
        reasons[combination] = f"FAILED: {text.partition(':')[0]}" if end == "lost" else refusal
    return tally, reasons


def listing(reasons: dict[Combination, str]) -> str:
    """The matrix as a table; refusals are numbered below it."""
    numbers: dict[str, int] = {}
    lines = [f"| environment, views | {' | '.join(OBSERVATIONS)} |", "|---" * 7 + "|"]
    for task, views in itertools.product(WORLDS, (1, 2)):
        cells = []
        for obs in OBSERVATIONS:
            found = {agent: reasons[Combination(task, views, obs, agent)] for agent in AGENTS}
            works = [agent for agent, reason in found.items() if not reason]
            refused = dict.fromkeys(reason for reason in found.values() if reason)
            marks = [f"({numbers.setdefault(r, len(numbers) + 1)})" for r in refused]
            cells.append(
                " ".join([", ".join(works) if len(works) < len(AGENTS) else "all", *marks])
            )
        lines.append(f"| {task}, {views} | {' | '.join(cells)} |")
    refusals = [f"{number}. refused: {reason}" for reason, number in numbers.items()]
    return "\n".join([*lines, "", *refusals])
