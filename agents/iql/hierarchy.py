"""What agents of two levels share: a policy that pursues subgoals, renewed on a schedule."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agents.base import Metrics, Noise, pad_rows
from agents.iql.awr import AWRSettings
from agents.iql.iql import IQL, IQLSettings
from agents.iql.subgoals import Proposal, select_subgoals
from common.data.batches import Batch
from common.foundation.errors import UserError
from common.settings.schema import setting

# Told which environments (a row of `act` each, (R,)) got new subgoals, and how they were chosen.
Watch = Callable[[Tensor, Proposal], None]


@dataclass(frozen=True)
class HierarchySettings(AWRSettings, IQLSettings):
    """Keys that `hiql` and `sgiql` share."""

    subgoal_k: int = setting(low=1)
    subgoal_steps: int = setting(low=1)
    num_subgoals: int = setting(low=0)
    disable_subgoal: bool = setting()
    debug_subgoals: bool = setting(identity=False)


class Hierarchy(IQL, ABC):
    """IQL, and a subgoal policy (`set_subgoal_policy`) whose subgoals the policy pursues.

    Reads of its section: IQL's keys; when acting subgoal_steps, num_subgoals, disable_subgoal.
    Letters: B batch, R environments, M candidates.
    """

    def set_subgoal_policy(self, network: nn.Module, trained: bool = True) -> None:
        """Take `network` as subgoal policy; if `trained`, updates minimise `subgoal_loss`."""
        self.subgoal_policy = network.to(self.context.device)
        if trained:
            self.learners["subgoal"] = self.context.learner(network)

    # --- losses ------------------------------------------------------------------------------

    @abstractmethod
    def subgoal_loss(self, batch: Batch, noise: Noise) -> tuple[Tensor, Metrics]:
        """Loss of the subgoal policy on `policy_subgoal`, given the state and `policy_goal`."""

    @torch.no_grad()
    def advantage(self, batch: Batch) -> Tensor:
        """A = V(w,g) - V(s,g) of the batch's subgoals w: (B,)."""
        goal = batch.policy_goal
        return self.value(batch.policy_subgoal, goal) - self.value(batch.obs, goal)

    # --- learning ----------------------------------------------------------------------------

    def update_policies(self, batch: Batch, noise: Noise) -> Metrics:
        """The policy, then the subgoal policy; neither touches what the other learns."""
        metrics = super().update_policies(batch, noise)
        if "subgoal" not in self.learners:
            return metrics
        return metrics | self._minimise("subgoal", *self.subgoal_loss(batch, noise))

    # --- acting ------------------------------------------------------------------------------

    @property
    def pursues_subgoals(self) -> bool:
        return not self.settings.disable_subgoal and self.settings.num_subgoals > 0

    @torch.no_grad()
    def act(
        self,
        obs: Tensor,
        goal: Tensor,
        step: Tensor,
        memory: Tensor,
        generators: list[torch.Generator],
        watch: Watch | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `IQL.act`, with a new subgoal every `subgoal_steps` steps, of which `watch` is told.

        After `num_subgoals` of them the goal itself is pursued.
        """
        s = self.settings
        if s.disable_subgoal:
            return super().act(obs, goal, step, memory, generators)
        spent = (step >= s.subgoal_steps * s.num_subgoals).view(-1, *(1,) * (goal.dim() - 1))
        memory = torch.where(spent, goal, memory)
        due = (step % s.subgoal_steps == 0) & (step < s.subgoal_steps * s.num_subgoals)
        rows = due.nonzero().squeeze(1)
        if len(rows):
            own = [generators[i] for i in rows.tolist()]
            proposal = self.propose(obs[rows], goal[rows], own)
            memory = memory.index_copy(0, rows, proposal.subgoal)
            if watch is not None:
                watch(rows, proposal)
        return self._follow(obs, memory), memory

    @abstractmethod
    def propose(self, obs: Tensor, goal: Tensor, generators: list[torch.Generator]) -> Proposal:
        """New subgoals for R environments, from one call of each network."""

    def predict(self, obs: Tensor, goal: Tensor) -> Tensor:
        """The one subgoal of a deterministic subgoal policy, as a candidate: (R, 1, *shape)."""
        return self.subgoal_policy(pad_rows(obs), pad_rows(goal))[: len(obs)].unsqueeze(1)

    def choose(
        self, candidates: Tensor, obs: Tensor, goal: Tensor, radius: float | None
    ) -> Proposal:
        """Choose among candidates (R, M, *shape) by their values; see `select_subgoals`."""
        count = candidates.shape[1]
        flat = pad_rows(candidates.flatten(0, 1))  # (R*M, *shape)
        repeat = [pad_rows(x.repeat_interleave(count, dim=0)) for x in (obs, goal)]
        rows = len(obs) * count
        reach = self.value(repeat[0], flat)[:rows].view(-1, count)
        remaining = self.value(flat, repeat[1])[:rows].view(-1, count)
        direct = self.value(pad_rows(obs), pad_rows(goal))[: len(obs)]
        values = reach, remaining, direct, radius
        return Proposal(*select_subgoals(candidates, goal, *values), *values)

    # --- files -------------------------------------------------------------------------------

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned, or that of an `iql` agent if it will do.

        It does where no subgoal policy is asked for, or another run's takes its place.
        """
        missing = "subgoal" in self.learners and "subgoal" not in state
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
