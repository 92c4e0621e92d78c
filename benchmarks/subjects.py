"""What is measured: agents with made-up data of the shapes that the paper's experiments have."""

from dataclasses import dataclass
from typing import Any

import torch

from agents import AGENTS
from agents.base import AgentContext, ObservationSpec
from agents.families import make_networks
from common.buffer import Buffer, GoalShares
from common.config import Config, compose
from common.registry import lookup

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
        value_goals=GoalShares(0.2, 0.8, 0.0, False),
        policy_goals=GoalShares(0.0, 1.0, 0.0, False),
        gamma=0.99,
        subgoal_k=min(50, length // 2),
        done_signal=False,
    )


def _reward(reached: dict[str, torch.Tensor], asked: dict[str, torch.Tensor]) -> torch.Tensor:
    near = (reached["qpos"] - asked["qpos"]).norm(dim=-1) < 0.1
    return near.float() - 1
