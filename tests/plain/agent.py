"""IQL and EC-SGIQL written plainly, for comparison: one call per critic, one optimiser step each.

The same equations as `agents.iql.iql` and `agents.iql.sgiql`, with torch's layers, Adam over lists
of parameters, and a loop over parameters for the target critics.
"""

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor, nn

from agents.iql.iql import IQL
from agents.iql.sgiql import SGIQL
from agents.networks.diffusion import SLOTS
from common.data.batches import Batch
from tests.plain.networks import plain


class PlainAgent:
    """Learns what `agent` learns, from copies of its parameters as they are now."""

    def __init__(self, agent: IQL) -> None:
        self.settings, self.context = agent.settings, agent.context
        device = self.context.device
        self.value, self.policy = plain(agent.value).to(device), plain(agent.policy).to(device)
        self.critics = [plain(agent.critic, member).to(device) for member in range(2)]
        self.targets = [plain(agent.target_critic, member).to(device) for member in range(2)]
        self.diffuser = None
        if isinstance(agent, SGIQL):
            self.diffuser = plain(agent.subgoal_policy).to(device)
            self.signal, self.noise = agent.subgoal_policy.signal, agent.subgoal_policy.noise
        modules = [self.value, nn.ModuleList(self.critics), self.policy, self.diffuser]
        self.optimisers = {
            module: torch.optim.Adam(module.parameters(), self.context.lr)
            for module in modules
            if module is not None
        }
        self._critics = modules[1]
        self.done = 0  # updates

    def update(self, batch: Batch, noise: TensorDict) -> dict[str, float]:
        """One update in the published order; returns its losses."""
        losses = {"value": self._step(self.value, self._value_loss(batch))}
        losses["critic"] = self._step(self._critics, self._critic_loss(batch))
        losses["policy"] = self._step(self.policy, self._policy_loss(batch))
        if self.diffuser is not None:
            losses["subgoal"] = self._step(self.diffuser, self._diffusion_loss(batch, **noise))
        for critic, target in zip(self.critics, self.targets, strict=True):
            for p, q in zip(critic.parameters(), target.parameters(), strict=True):
                q.data.mul_(1 - self.settings.tau).add_(p.data, alpha=self.settings.tau)
        self.done += 1
        return losses

    def _value_loss(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            q = [target(batch.obs, batch.value_goal, batch.action) for target in self.targets]
            q = torch.minimum(*q)
        u = q - self.value(batch.obs, batch.value_goal)
        weight = torch.where(u < 0, 1 - self.settings.expectile, self.settings.expectile)
        return (weight * u.square()).mean()

    def _critic_loss(self, batch: Batch) -> Tensor:
        gamma = self.context.gamma
        with torch.no_grad():
            next_v = self.value(batch.next_obs, batch.value_goal).squeeze(-1)
            y = batch.reward + (1 - batch.done) * gamma * next_v
            y = y.clamp(-1 / (1 - gamma), 0)
        q = [critic(batch.obs, batch.value_goal, batch.action) for critic in self.critics]
        return sum(F.mse_loss(x.squeeze(-1), y) for x in q)

    def _policy_loss(self, batch: Batch) -> Tensor:
        action = torch.tanh(self.policy(batch.obs, batch.policy_goal))
        q = self.critics[0](batch.obs, batch.policy_goal, action)
        ddpg = -q.mean() / (q.detach().abs().mean() + 1e-6)
        return ddpg + self.settings.alpha * F.mse_loss(action, batch.action)

    def _diffusion_loss(self, batch: Batch, t: Tensor, eps: Tensor) -> Tensor:
        noisy = self.signal[t][:, None, None] * batch.policy_subgoal
        noisy = noisy + self.noise[t][:, None, None] * eps
        predicted = self.diffuser(batch.obs, noisy, batch.policy_goal, t)
        return F.l1_loss(predicted, eps) / SLOTS

    def _step(self, module: nn.Module, loss: Tensor) -> float:
        optimiser, context = self.optimisers[module], self.context
        if context.lr_decay_steps:
            optimiser.param_groups[0]["lr"] = (
                context.lr / (1 + self.done / context.lr_decay_steps) ** 0.5
            )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), context.grad_clip_norm)
        optimiser.step()
        return loss.item()
