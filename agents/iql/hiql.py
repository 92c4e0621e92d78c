"""HIQL: IQL whose policy pursues subgoals that a deterministic subgoal policy predicts.

Park et al. 2023 with the critics and the DDPG+BC policy of `agents.iql.iql`; spec: agents 2 and 6.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from agents.base import AgentContext, Metrics, Noise
from agents.iql.awr import awr_loss
from agents.iql.hierarchy import Hierarchy, HierarchySettings
from agents.iql.subgoals import Proposal
from common.data.batches import Batch


@dataclass(frozen=True)
class HIQLSettings(HierarchySettings):
    """Section `hiql`."""


class HIQL(Hierarchy):
    """V, two critics, a policy for near goals and a subgoal policy.

    Reads of its section: IQL's keys; beta, chamfer_metric, chamfer_target_weight,
    awr_broadcast_weights; when acting subgoal_steps, num_subgoals, disable_subgoal.
    Letters: B batch, R environments.
    """

    Settings = HIQLSettings
    name = "hiql"

    def __init__(self, settings: HIQLSettings, context: AgentContext) -> None:
        super().__init__(settings, context)
        self.set_subgoal_policy(context.networks.subgoal_policy())

    # --- losses ------------------------------------------------------------------------------

    def policy_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """L_pi = -E[ Q_1(s,pi,w) ] / sg(E|Q_1|) + alpha E[ (pi - a)^2 ], pi = pi(s,w).

        IQL's loss for the goal w = s_{t+k}, since the policy acts on subgoals only.
        """
        return super().policy_loss(replace(batch, policy_goal=batch.policy_subgoal))

    def subgoal_loss(self, batch: Batch, noise: Noise) -> tuple[Tensor, Metrics]:
        """L = E[ min(exp(beta A), 100) |pi_h(s,g) - w|^2 ], A = V(w,g) - V(s,g), w = s_{t+k}.

        For particle sets see `agents.iql.awr`.
        """
        predicted = self.subgoal_policy(batch.obs, batch.policy_goal)
        advantage = self.advantage(batch)
        return awr_loss(predicted, batch.policy_subgoal, advantage, self.settings, self.context)

    # --- acting ------------------------------------------------------------------------------

    @torch.no_grad()
    def propose(self, obs: Tensor, goal: Tensor, generators: list[torch.Generator]) -> Proposal:
        """The subgoal policy's output for each of R environments."""
        return self.choose(self.predict(obs, goal), obs, goal, radius=None)
