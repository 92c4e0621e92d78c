"""ECRL: TD3 with hindsight goals on sets of entities (Haramati, Daniel & Tamar 2024).

Fujimoto et al. 2018 for TD3, Andrychowicz et al. 2017 for hindsight.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from agents.base import Agent, AgentContext, Metrics, Timestep, pad_rows
from agents.ecrl.chamfer import ChamferReward, ChamferSettings
from agents.ecrl.exploration import Exploration
from agents.ecrl.objects import load_classifier
from agents.learner import flatten_parameters
from agents.networks.entities import share_member
from agents.networks.families import Networks, PlainNetworks, SmorlNetworks, TokenNetworks
from common.data.batches import Batch, Tree
from common.data.buffer import Buffer
from common.data.goals import HindsightLaw
from common.data.wants import Hindsight
from common.foundation.device import limited_threads
from common.foundation.errors import UserError
from common.settings.schema import setting

POLICY_METRICS = tuple(f"policy/{name}" for name in ("loss", "q", "action_square", "grad_norm"))


@dataclass(frozen=True)
class TD3Settings(ChamferSettings):
    """Section `td3`."""

    networks: str = setting(choices=("ecrl", "smorl", "hecrl"))
    h_dim: int = setting(low=1)
    action_token: bool = setting()
    goal_attention: bool = setting()
    interaction: bool = setting()
    gamma: float | None = setting(above=0.0, below=1.0)
    lr: float | None = setting(above=0.0)
    batch_size: int | None = setting(low=1)
    grad_clip_norm: float | None = setting(above=0.0)
    tau: float = setting(above=0.0, high=1.0)
    target_period: int | None = setting(low=1)
    policy_delay: int = setting(low=1)
    target_noise: float = setting(low=0.0)
    target_noise_clip: float = setting(low=0.0)
    action_penalty: float = setting(low=0.0)
    p_hindsight: float = setting(low=0.0, high=1.0)
    moved_share: float = setting(low=0.0, high=1.0)
    random_episodes: int = setting(low=0)
    explore_eps: float = setting(low=0.0, high=1.0)
    explore_sigma: float = setting(low=0.0)
    explore_decay_from: int = setting(low=0)
    explore_decay_to: int = setting(low=0)
    explore_decay_share: float = setting(low=0.0, high=1.0)


class TD3(Agent):
    """Two critics and a policy, and targets of both; letters as in `Agent`."""

    Settings = TD3Settings
    name = "td3"
    losses: ClassVar[tuple[str, ...]] = ("critic_loss", "policy_loss")
    learning_only: ClassVar[tuple[str, ...]] = ("critic", "target_critic", "target_policy")
    shown: ClassVar[dict[str, str]] = {"Q": "critic/mean", "loss": "critic/loss"}
    learns_online: ClassVar[bool] = True

    def __init__(self, settings: TD3Settings, context: AgentContext) -> None:
        super().__init__(settings, context)
        s, device = settings, context.device
        if s.explore_decay_to < s.explore_decay_from:
            raise UserError(
                f"td3.explore_decay_to={s.explore_decay_to} is not possible; allowed: at least "
                f"td3.explore_decay_from={s.explore_decay_from}"
            )
        self.gamma = s.gamma or context.gamma
        self.reward = make_reward(settings, context)
        least = s.chamfer_least if self.reward else context.reward_range[0]
        self.value_range = least / (1 - self.gamma), 0.0
        self.batch_size = s.batch_size
        self.wants = Hindsight(HindsightLaw(s.p_hindsight, s.moved_share), self.reward)
        self.exploration = Exploration(
            s.random_episodes,
            s.explore_eps,
            s.explore_sigma,
            (s.explore_decay_from, s.explore_decay_to),
            s.explore_decay_share,
        )
        networks = choose_networks(settings, context)
        self.critic, self.target_critic = (networks.critic(2).to(device) for _ in range(2))
        self.policy, self.target_policy = (networks.policy().to(device) for _ in range(2))
        max_norm = s.grad_clip_norm or math.inf
        self.learners["critic"] = context.learner(self.critic, s.lr, max_norm)
        self.learners["policy"] = context.learner(self.policy, s.lr, max_norm)
        self.targets = {"critic": self.target_critic, "policy": self.target_policy}
        self.target_flats: dict[str, Tensor] = {}
        for name, target in self.targets.items():
            target.load_state_dict(self.learners[name].module.state_dict())
            self.target_flats[name] = flatten_parameters(target.requires_grad_(False))
        # The policy climbs the first critic only, and must not move it.
        self.first_critic = share_member(self.critic, networks.critic(1).to(device))
        self.branches = device.type != "cuda"  # there an update is captured, whichever it is

    # --- losses ------------------------------------------------------------------------------

    def critic_loss(self, batch: Batch, noise: Tree) -> tuple[Tensor, Metrics]:
        """L_Q = sum_i E[ (Q_i(s,a,g) - y)^2 ] with smoothed targets.

        y = clip(r + (1-done) gamma min_i Q^_i(s',a',g), r_min/(1-gamma), 0), where
        a' = clip(pi^(s',g) + clip(sigma eps, -c, c), -1, 1).
        """
        s, goal = self.settings, batch.value_goal
        with torch.no_grad():
            bound = s.target_noise_clip
            blur = (s.target_noise * noise["action"]).clamp(-bound, bound)
            action = (self.target_policy(batch.next_obs, goal) + blur).clamp(-1, 1)
            next_q = self.target_critic(batch.next_obs, action, goal).amin(dim=0)
            y = batch.reward + (1 - batch.done) * self.gamma * next_q
            y = y.clamp(*self.value_range)
        q = self.critic(batch.obs, batch.action, goal)  # (2, B)
        loss = (q - y).square().mean(dim=1).sum()
        return loss, {"critic/loss": loss, "critic/mean": q.mean(), "critic/target": y.mean()}

    def policy_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """L_pi = -E[ Q_1(s,pi,g) ] + action_penalty E[ pi^2 ], pi = pi(s,g)."""
        goal = batch.policy_goal
        action = self.policy(batch.obs, goal)
        q, size = self.first_critic(batch.obs, action, goal).mean(), action.square().mean()
        loss = -q + self.settings.action_penalty * size
        return loss, {"policy/loss": loss, "policy/q": q, "policy/action_square": size}

    # --- learning ----------------------------------------------------------------------------

    def prepare(self, buffer: Buffer) -> None:
        """Raise `UserError` if the data have not what batches are drawn from."""
        problem = self.wants.law.problem(buffer.episodes, self.name)
        if problem:
            raise UserError(problem)

    def draw_noise(self, batch: Batch, generator: torch.Generator) -> TensorDict:
        """eps (B, A) standard normal."""
        action = batch.action
        eps = torch.randn(action.shape, generator=generator, device=action.device)
        return TensorDict({"action": eps}, batch_size=batch.batch_size)

    def update(self, batch: Batch, noise: Tree) -> Metrics:
        """The critics; the policy at every `policy_delay`-th update, the targets at theirs.

        Metrics of the policy are zero where it is not due, and else multiplied by the delay: their
        means over all updates are then those over its own.
        """
        metrics = self._minimise("critic", *self.critic_loss(batch, noise))
        done, delay = self.learners["critic"].moments["step"], self.settings.policy_delay
        due = done % delay == 0
        if not self.branches or due:
            loss, own = self.policy_loss(batch)
            learner = self.learners["policy"]
            own["policy/grad_norm"] = learner.step(loss, None if self.branches else due)
            metrics |= {name: value.detach() * (due * delay) for name, value in own.items()}
        else:
            metrics |= dict.fromkeys(POLICY_METRICS, torch.zeros_like(done))
        share = self.settings.tau * (done % self.target_period == 0)
        for name, target in self.target_flats.items():
            target.lerp_(self.learners[name].flat.detach(), share)
        return metrics

    @property
    def target_period(self) -> int:
        """Updates between two steps of the targets; as published, those of a burst."""
        return self.settings.target_period or self.context.burst

    # --- acting ------------------------------------------------------------------------------

    @torch.no_grad()
    def act(self, timestep: Timestep) -> tuple[Tensor, Tree]:
        """The policy's actions; of explorers some are uniform, and all are noisy."""
        if not timestep.explore:
            return self._follow(timestep), timestep.memory
        size, device = self.context.action_dim, timestep.obs.device
        draws = self.exploration.draw(timestep.episode, size, timestep.generators)
        coin, uniform, noise = (x.to(device) for x in draws)
        if not coin.all():  # the first episodes need no network
            uniform = torch.where(coin[:, None], uniform, self._follow(timestep))
        return (uniform + noise).clamp(-1, 1), timestep.memory

    def _follow(self, timestep: Timestep) -> Tensor:
        with limited_threads(self.context.networks.acting_threads):
            action = self.policy(pad_rows(timestep.obs), pad_rows(timestep.goal))
        return action[: len(timestep.obs)]

    # --- files -------------------------------------------------------------------------------

    def state_dict(self) -> dict:
        """As `Agent.state_dict`, with the targets."""
        targets = {f"target_{k}": {"module": t.state_dict()} for k, t in self.targets.items()}
        return super().state_dict() | targets

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        for name, target in self.targets.items():
            target.load_state_dict(state[f"target_{name}"]["module"])


def make_reward(settings: TD3Settings, context: AgentContext) -> ChamferReward | None:
    """The reward that `td3.reward` names; None for the world's."""
    if settings.reward == "world":
        return None
    spec = context.spec
    if not spec.explicit:
        raise UserError(
            f"td3.reward={settings.reward} is of particles; use obs=dlp or td3.reward=world"
        )
    classifier, path = None, settings.object_classifier
    if path is not None:
        classifier = load_classifier(path, spec.features - spec.explicit).to(context.device)
    return ChamferReward(settings, spec, classifier)


def choose_networks(settings: TD3Settings, context: AgentContext) -> Networks:
    """The networks that `td3.networks` names; raises `UserError` if observations have none."""
    base = context.networks
    if settings.networks == "hecrl":
        return base
    eit, mlp = (replace(size, h_dim=settings.h_dim) for size in (base.eit, base.mlp))
    spec, shape = context.spec, (context.spec, context.action_dim, eit, mlp)
    match settings.networks, spec.kind:
        case "ecrl", "entities":
            options = settings.action_token, settings.goal_attention, settings.interaction
            return TokenNetworks(*shape, *options)
        case "ecrl", "flat":
            return PlainNetworks(*shape)
        case "smorl", "entities" if spec.ordered and spec.shape[0] == 2:
            return SmorlNetworks(*shape)
        case "smorl", _:
            raise UserError(
                "td3.networks=smorl pursues one object; use a world with one, and obs=ec_state"
            )
    raise UserError(
        f"td3.networks={settings.networks} has none for observations of the kind "
        f"{spec.kind}; use td3.networks=hecrl or another obs"
    )
