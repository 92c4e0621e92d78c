"""Subjects of measurement: worlds, and agents with made-up data of the paper's shapes."""

from dataclasses import dataclass
from typing import Any

import torch

from agents.base import AgentContext
from agents.networks.families import make_networks
from agents.observations.spec import ObservationSpec
from common.data.buffer import Buffer
from common.data.goals import GoalLaw, GoalShares
from common.foundation.errors import UserError
from common.foundation.registry import AGENTS, lookup
from common.settings.config import Config, compose
from envs.base import World
from envs.make import make_world

WORLDS = {
    "PPP-Cube, 3 cubes": ("manipobj", ("env_kwargs.manipobj.num_cubes=3",)),
    "Pushing, 3 cubes": ("pushing", ("task=pushing-v0", "env_kwargs.pushing.num_objects=3")),
    "Scene": ("scene", ("task=visual-scene-v0",)),
    "Push-Tetris, 3 pieces": (
        "pushtetris",
        ("task=pushtetris-v0", "env_kwargs.pushtetris.num_objects=3"),
    ),
}
ACTIONS = 5
PRESET = (  # of commands/quickstart.sh, as it began; the cube's now has eight heads
    "arch_eit.embed_dim=32",
    "arch_eit.h_dim=64",
    "arch_eit.n_head=4",
    "arch_eit.n_diffuser_layers=2",
    "batch_size=256",
    "lr_decay_steps=3000",
)
TINY = (  # for tests that the benchmarks run
    "arch_eit.embed_dim=8",
    "arch_eit.h_dim=8",
    "arch_eit.n_head=2",
    "arch_eit.n_diffuser_layers=1",
    "arch_mlp.h_dim=8",
    "batch_size=4",
)


@dataclass(frozen=True)
class Subject:
    """An agent and what it observes.

    Attributes:
        title: in tables. spec: of its observations. settings: what differs from `config.yaml`.
    """

    title: str
    spec: ObservationSpec
    settings: tuple[str, ...]

    def config(self, *changes: str) -> Config:
        """Its settings; further `changes` win."""
        return compose(["env_kwargs.manipobj.num_cubes=3", *self.settings, *changes])

    def agent(self, config: Config, device: torch.device) -> Any:
        """An untrained agent."""
        networks = make_networks(self.spec, ACTIONS, config.arch_eit, config.arch_mlp)
        context = AgentContext(
            self.spec,
            ACTIONS,
            networks,
            config.gamma,
            config.lr,
            config.lr_decay_steps,
            config.grad_clip_norm,
            device,
            fused_adam=config.fused_adam,
        )
        torch.manual_seed(0)
        return lookup(AGENTS, config.agent, "agent")(config.agent_settings, context)


def entities(count: int, features: int) -> ObservationSpec:
    return ObservationSpec("entities", (count, features))


def particles(count: int, views: int) -> ObservationSpec:
    return ObservationSpec("entities", (count, 14), views=views, explicit=6)


SUBJECTS = {
    "sgiql-3-cubes": Subject("EC-SGIQL, 3 cubes", entities(4, 15), ("agent=sgiql",)),
    "sgiql-dlp-2": Subject("EC-SGIQL, DLP 2 x 20", particles(40, 2), ("agent=sgiql",)),
    "sgiql-dlp-1": Subject("EC-SGIQL, DLP 20", particles(20, 1), ("agent=sgiql",)),
    "iql-flat": Subject("IQL, flat state", ObservationSpec("flat", (21,)), ("agent=iql",)),
    "preset": Subject("CPU preset", entities(2, 8), ("agent=sgiql", *PRESET)),
}


def made_up(
    spec: ObservationSpec, rows: int, length: int, device: torch.device | None = None
) -> Buffer:
    """A buffer of random rows in episodes of one length, with goals as the paper draws them."""
    generator = torch.Generator().manual_seed(0)
    episodes = max(rows // length, 1)
    rows = episodes * length
    obs = torch.randn(rows, *spec.shape, generator=generator).to(device)
    place = torch.rand(rows, 9, generator=generator).to(device)

    return Buffer(
        obs,
        (torch.rand(rows, ACTIONS, generator=generator) * 2 - 1).to(device),
        torch.full((episodes,), length, device=device),
        {"qpos": place},
        _reward,
        goals=GoalLaw(
            GoalShares(0.2, 0.8, 0.0, False), GoalShares(0.0, 1.0, 0.0, False), gamma=0.99
        ),
        done_signal=False,
    )


def _reward(reached: dict[str, torch.Tensor], asked: dict[str, torch.Tensor]) -> torch.Tensor:
    near = (reached["qpos"] - asked["qpos"]).norm(dim=-1) < 0.1
    return near.float() - 1


def make_benchmark_world(
    title: str, steps: int, *, collects: bool = False, multiview: bool = False, fast: bool = False
) -> World:
    """The world of that title, with this many steps of an episode.

    `fast` is `render_quality=fast`; raises `UserError` for a world that has no such setting.
    """
    section, settings = WORLDS[title]
    changes = [*settings, f"max_episode_steps={steps}", f"multiview={str(multiview).lower()}"]
    if collects:
        changes += make_world(compose(changes)).collect_overrides()
    if fast and not has_qualities(title):
        raise UserError(f"{title} is drawn in one quality only")
    if fast:
        changes.append(f"env_kwargs.{section}.render_quality=fast")
    return make_world(compose(changes))


def has_qualities(title: str) -> bool:
    """True of worlds with the setting `render_quality`."""
    return WORLDS[title][0] != "pushtetris"
