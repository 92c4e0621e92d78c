"""Agents of two levels: a policy that pursues subgoals, renewed on a schedule."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from agents.base import AgentContext, Metrics, Timestep, pad_rows
from agents.iql.awr import AWRSettings, awr_loss
from agents.iql.iql import IQL, IQLSettings
from agents.iql.subgoals import Proposal, select_subgoals
from common.data.batches import Batch, Tree
from common.data.wants import Transitions
from common.foundation.errors import UserError
from common.settings.schema import setting


@dataclass(frozen=True)
class HierarchySettings(AWRSettings, IQLSettings):
    """Keys that `hiql` and `sgiql` share."""

    subgoal_k: int = setting(low=1)
    subgoal_steps: int = setting(low=1)
    num_subgoals: int = setting(low=0)
    disable_subgoal: bool = setting()
    debug_subgoals: bool = setting(identity=False)


class Hierarchy(IQL):
    """IQL, and a subgoal policy whose subgoals the policy pursues; here a deterministic one (AWR).

    Letters: B batch, R environments, M candidates.
    """

    losses: ClassVar[tuple[str, ...]] = (*IQL.losses, "subgoal_loss")

    def __init__(self, settings: HierarchySettings, context: AgentContext) -> None:
        super().__init__(settings, context)
        self.wants = Transitions(settings.subgoal_k)
        self.subgoal_policy = self._make_subgoal_policy().to(context.device)
        if self.learns_subgoals:
            subgoals = context.learner(self.subgoal_policy, ema_decay=settings.ema_decay)
            self.learners["subgoal"] = subgoals

    def _make_subgoal_policy(self) -> nn.Module:
        return self.context.networks.subgoal_policy()

    @property
    def learns_subgoals(self) -> bool:
        """True if updates minimise `subgoal_loss`."""
        return True

    # --- losses ------------------------------------------------------------------------------

    def subgoal_loss(self, batch: Batch, noise: Tree) -> tuple[Tensor, Metrics]:
        """L = E[ min(exp(beta A), 100) |pi_h(s,g) - w|^2 ], A = V(w,g) - V(s,g), w = s_{t+k}.

        For particle sets see `agents.iql.awr`.
        """
        predicted = self.subgoal_policy(batch.obs, batch.policy_goal)
        advantage = self.advantage(batch)
        return awr_loss(predicted, batch.policy_subgoal, advantage, self.settings, self.context)

    @torch.no_grad()
    def advantage(self, batch: Batch) -> Tensor:
        """A = V(w,g) - V(s,g) of the batch's subgoals w: (B,)."""
        goal = batch.policy_goal
        return self.value(batch.policy_subgoal, goal) - self.value(batch.obs, goal)

    # --- learning ----------------------------------------------------------------------------

    def update_policies(self, batch: Batch, noise: Tree) -> Metrics:
        """The policy, then the subgoal policy; neither touches what the other learns."""
        metrics = super().update_policies(batch, noise)
        if self.learns_subgoals:
            metrics |= self._minimise("subgoal", *self.subgoal_loss(batch, noise))
        return metrics

    # --- acting ------------------------------------------------------------------------------

    @property
    def pursues_subgoals(self) -> bool:
        return not self.settings.disable_subgoal and self.settings.num_subgoals > 0

    @property
    def explains(self) -> bool:
        return self.settings.debug_subgoals and self.pursues_subgoals

    def begin(self, goal: Tensor) -> TensorDict:
        """The subgoal pursued, at first the goal."""
        return TensorDict({"subgoal": goal})

    def pursued(self, memory: TensorDict, goal: Tensor) -> Tensor:
        return memory["subgoal"]

    @torch.no_grad()
    def act(self, timestep: Timestep) -> tuple[Tensor, Tree]:
        """The policy's actions, with a new subgoal every `subgoal_steps` steps.

        After `num_subgoals` of them the goal itself is pursued.
        """
        s, obs, goal, step = self.settings, timestep.obs, timestep.goal, timestep.step
        if s.disable_subgoal:
            return super().act(timestep)
        spent = (step >= s.subgoal_steps * s.num_subgoals).view(-1, *(1,) * (goal.dim() - 1))
        subgoal = torch.where(spent, goal, timestep.memory["subgoal"])
        due = (step % s.subgoal_steps == 0) & (step < s.subgoal_steps * s.num_subgoals)
        rows = due.nonzero().squeeze(1)
        if len(rows):
            own = [timestep.generators[i] for i in rows.tolist()]
            proposal = self.propose(obs[rows], goal[rows], own)
            subgoal = subgoal.index_copy(0, rows, proposal.subgoal)
            if timestep.tell is not None:
                timestep.tell(rows, proposal.table())
        memory = TensorDict({"subgoal": subgoal}, batch_size=step.shape)
        return self._follow(timestep, subgoal), memory

    @property
    def acting_subgoal_policy(self) -> nn.Module:
        """The subgoal policy with averaged parameters, if it is learned and there are such."""
        return self.learners["subgoal"].averaged if self.learns_subgoals else self.subgoal_policy

    def propose(self, obs: Tensor, goal: Tensor, generators: list[torch.Generator]) -> Proposal:
        """New subgoals for R environments, here the only one that each has."""
        predicted = self.acting_subgoal_policy(pad_rows(obs), pad_rows(goal))[: len(obs)]
        return self.choose(predicted.unsqueeze(1), obs, goal, radius=None)

    def choose(
        self, candidates: Tensor, obs: Tensor, goal: Tensor, radius: float | None
    ) -> Proposal:
        """Choose among candidates (R, M, *shape) by their values; see `select_subgoals`."""
        count = candidates.shape[1]
        flat = pad_rows(candidates.flatten(0, 1))  # (R*M, *shape)
        repeat = [pad_rows(x.repeat_interleave(count, dim=0)) for x in (obs, goal)]
        rows, value = len(obs) * count, self.learners["value"].averaged
        reach = value(repeat[0], flat)[:rows].view(-1, count)
        remaining = value(flat, repeat[1])[:rows].view(-1, count)
        direct = value(pad_rows(obs), pad_rows(goal))[: len(obs)]
        values = reach, remaining, direct, radius
        return Proposal(*select_subgoals(candidates, goal, *values), *values)

    # --- files -------------------------------------------------------------------------------

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned, or that of an `iql` agent if it will do.

        It does where no subgoal policy is asked for, or another run's takes its place.
        """
        missing = self.learns_subgoals and "subgoal" not in state
        if missing and not self.settings.disable_subgoal:
            section = self.name
            raise UserError(
                f"the checkpoint is of an agent without subgoals, so agent={section} needs "
                f"{section}.disable_subgoal=true, or sgiql the subgoal policy of another run: "
                "sgiql.load_pretrained_goal_pi=true sgiql.goal_pi_chkpt=RUN"
            )
        if missing:
            state = state | {"subgoal": self.learners["subgoal"].state_dict()}
        super().load_state_dict(state)
