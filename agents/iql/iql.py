"""Goal-conditioned implicit Q-learning with a deterministic DDPG+BC policy (EC-IQL on entity sets).

Kostrikov et al. 2022 for the critics, Fujimoto & Gu 2021 for the policy.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from agents.base import Agent, AgentContext, Metrics, Timestep, pad_rows
from agents.learner import flatten_parameters
from agents.networks.entities import share_member
from common.data.batches import Batch, Tree
from common.foundation.device import limited_threads
from common.settings.schema import setting


@dataclass(frozen=True)
class IQLSettings:
    """Section `iql`."""

    tau: float = setting(above=0.0, high=1.0)
    alpha: float = setting(low=0.0)
    alpha_decay_steps: int = setting(low=0)
    expectile: float = setting(above=0.0, below=1.0)
    ema_decay: float = setting(low=0.0, below=1.0)
    action_noise: float = setting(low=0.0)


class IQL(Agent):
    """V, two critics and a policy; letters as in `Agent`.

    With `ema_decay`, what acts are averages of the parameters of V and the policies.
    """

    Settings = IQLSettings
    name = "iql"
    losses: ClassVar[tuple[str, ...]] = ("value_loss", "critic_loss", "policy_loss")
    judges: ClassVar[tuple[str, ...]] = ("value", "critic")
    learning_only: ClassVar[tuple[str, ...]] = ("critic", "target_critic")
    shown: ClassVar[dict[str, str]] = {"V": "value/mean", "bc": "policy/imitation"}

    def __init__(self, settings: IQLSettings, context: AgentContext) -> None:
        super().__init__(settings, context)
        self.value_range = context.reward_range[0] / (1 - context.gamma), 0.0
        networks, device = context.networks, context.device
        self.value = networks.value().to(device)
        self.critic = networks.critic(2).to(device)
        self.target_critic = networks.critic(2).to(device)
        self.policy = networks.policy().to(device)
        self.learners |= {
            "value": context.learner(self.value, ema_decay=settings.ema_decay),
            "critic": context.learner(self.critic),
            "policy": context.learner(self.policy, ema_decay=settings.ema_decay),
        }
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.target_flat = flatten_parameters(self.target_critic.requires_grad_(False))
        # The policy climbs the first critic only, and must not move it.
        self.first_critic = share_member(self.critic, networks.critic(1).to(device))

    # --- losses ------------------------------------------------------------------------------

    def value_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Expectile regression of V(s,g) on min_i Q^_i(s,a,g).

        L_V = E[ |tau_e - 1(u < 0)| u^2 ], u = min_i Q^_i(s,a,g) - V(s,g).
        """
        with torch.no_grad():
            q = self.target_critic(batch.obs, batch.action, batch.value_goal).amin(dim=0)
        v = self.value(batch.obs, batch.value_goal)
        u = q - v
        weight = torch.where(u < 0, 1 - self.settings.expectile, self.settings.expectile)
        loss = (weight * u.square()).mean()
        mean, seen = self.context.batch_mean, v.detach()
        spread = mean((seen - mean(seen)).square()).sqrt()
        return loss, {"value/loss": loss, "value/mean": v.mean(), "value/std": spread}

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """L_Q = sum_i E[ (Q_i(s,a,g) - y)^2 ] with one-step targets.

        y = clip(r + (1-done) gamma V(s',g), -1/(1-gamma), 0).
        """
        with torch.no_grad():
            next_v = self.value(batch.next_obs, batch.value_goal)
            y = batch.reward + (1 - batch.done) * self.context.gamma * next_v
            y = y.clamp(*self.value_range)
        q = self.critic(batch.obs, batch.action, batch.value_goal)  # (2, B)
        loss = (q - y).square().mean(dim=1).sum()
        return loss, {"critic/loss": loss, "critic/mean": q.mean(), "critic/target": y.mean()}

    def policy_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """L_pi = -E[ Q_1(s,pi,g) ] / sg(E|Q_1|) + alpha E[ (pi - a)^2 ], pi = pi(s,g)."""
        goal = self.policy_goal(batch)
        action = self.policy(batch.obs, goal)
        q = self.first_critic(batch.obs, action, goal)
        ddpg = -q.mean() / (self.context.batch_mean(q.detach().abs()) + 1e-6)
        imitation = F.mse_loss(action, batch.action)
        loss = ddpg + self.imitation_weight * imitation
        return loss, {"policy/loss": loss, "policy/q": q.mean(), "policy/imitation": imitation}

    def policy_goal(self, batch: Batch) -> Tensor:
        """The goals g (B, *shape) that the policy learns to reach."""
        return batch.policy_goal

    @property
    def imitation_weight(self) -> float | Tensor:
        """alpha, or alpha / sqrt(1 + k / K) at update k: less imitation as critics get better.

        K is alpha_decay_steps. Not in the reference, whose runs are long enough for a small alpha.
        """
        alpha, decay = self.settings.alpha, self.settings.alpha_decay_steps
        if not decay:
            return alpha
        return alpha * (1 + self.learners["policy"].moments["step"] / decay).rsqrt()

    # --- learning ----------------------------------------------------------------------------

    def update(self, batch: Batch, noise: Tree) -> Metrics:
        """One update on one batch, in the published order: V, Q, policy (then target critics).

        The two halves may run in two processes: the critics never read what the policies learn, and
        the policies read no more than V and the critics of the same update (not their targets, so
        it does not matter which of the two comes last).
        """
        return self.update_critics(batch) | self.update_policies(batch, noise)

    def update_critics(self, batch: Batch) -> Metrics:
        """V, then Q, then Q^ <- (1 - tau) Q^ + tau Q."""
        metrics = self._minimise("value", *self.value_loss(batch))
        metrics |= self._minimise("critic", *self.critic_loss(batch))
        self.target_flat.lerp_(self.learners["critic"].flat.detach(), self.settings.tau)
        return metrics

    def update_policies(self, batch: Batch, noise: Tree) -> Metrics:
        """The policy; `noise` is for agents that draw some."""
        return self._minimise("policy", *self.policy_loss(batch))

    # --- acting ------------------------------------------------------------------------------

    @torch.no_grad()
    def act(self, timestep: Timestep) -> tuple[Tensor, Tree]:
        """The policy's actions; nothing is remembered."""
        return self._follow(timestep, timestep.goal), timestep.memory

    def _follow(self, timestep: Timestep, target: Tensor) -> Tensor:
        """Actions (R, A) towards targets (R, *shape), with Gaussian noise if asked for."""
        obs, policy = timestep.obs, self.learners["policy"].averaged
        with limited_threads(self.context.networks.acting_threads):
            action = policy(pad_rows(obs), pad_rows(target))[: len(obs)]
        if not self.settings.action_noise:
            return action
        size, own = action.shape[1], timestep.generators
        noise = [torch.randn(size, generator=g, device=g.device) for g in own]
        noisy = action + self.settings.action_noise * torch.stack(noise).to(action)
        return noisy.clamp(-1, 1)

    # --- files -------------------------------------------------------------------------------

    def state_dict(self) -> dict:
        """As `Agent.state_dict`, with the target critics."""
        return super().state_dict() | {"target_critic": {"module": self.target_critic.state_dict()}}

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.target_critic.load_state_dict(state["target_critic"]["module"])
