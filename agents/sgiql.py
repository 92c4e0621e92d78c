"""Subgoal IQL, the paper's method: IQL pursues subgoals that a diffusion model proposes.

The two levels learn apart from the same batches (no value weighting of the subgoals) and meet only
when acting: many subgoals are sampled, those that V thinks out of reach are dropped, and the one
nearest to the goal is pursued (spec: agents 4 and 6).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.base import AgentContext, Metrics, pad_rows
from agents.diffusion import SubgoalDiffuser
from agents.iql import IQL, IQLSettings
from agents.learner import Learner
from agents.subgoals import select_subgoals
from common.buffer import Batch
from common.settings import setting


@dataclass(frozen=True)
class SGIQLSettings(IQLSettings):
    """Section `sgiql`."""

    subgoal_policy_type: str = setting(choices=("diffusion",))
    subgoal_k: int = setting(low=1)
    subgoal_steps: int = setting(low=1)
    num_subgoals: int = setting(low=0)
    disable_subgoal: bool = setting()
    n_diffusion_steps: int = setting(low=1)
    n_diffusion_samples: int = setting(low=1)
    value_competence_radius: float = setting(high=0.0)
    filter_subgoals: bool = setting()


class SGIQL(IQL):
    """V, two critics, a policy and a subgoal diffuser.

    Reads of its section: IQL's keys; n_diffusion_steps; when acting subgoal_steps, num_subgoals,
    disable_subgoal, n_diffusion_samples, value_competence_radius, filter_subgoals.
    Letters: B batch, R environments, M candidates, T diffusion steps.
    """

    Settings = SGIQLSettings
    name = "sgiql"

    def __init__(self, settings: SGIQLSettings, context: AgentContext) -> None:
        super().__init__(settings, context)
        diffuser = SubgoalDiffuser(context.shape[-1], context.size, settings.n_diffusion_steps)
        self.subgoal_policy = diffuser.to(context.device)
        self.learners["subgoal"] = Learner(diffuser, context.lr, context.grad_clip_norm)

    # --- losses ------------------------------------------------------------------------------

    def subgoal_loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        """L = E[ |eps - eps_theta(s, c_t, g, t)| ]: c the state k steps on, t uniform in 1..T."""
        device, size = batch.obs.device, len(batch.obs)
        t = torch.randint(self.subgoal_policy.steps, (size,), generator=generator, device=device)
        noise = torch.randn(batch.obs.shape, generator=generator, device=device)
        loss = self.subgoal_policy.loss(
            batch.obs, batch.policy_subgoal, batch.policy_goal, t, noise
        )
        return loss, {"subgoal/loss": loss}

    # --- learning ----------------------------------------------------------------------------

    def update_policies(self, batch: Batch, generator: torch.Generator) -> Metrics:
        """The policy, then the subgoal policy; neither touches what the other learns."""
        metrics = super().update_policies(batch, generator)
        return metrics | self._minimise("subgoal", *self.subgoal_loss(batch, generator))

    # --- acting ------------------------------------------------------------------------------

    @torch.no_grad()
    def act(
        self,
        obs: Tensor,
        goal: Tensor,
        step: Tensor,
        memory: Tensor,
        generators: list[torch.Generator],
    ) -> tuple[Tensor, Tensor]:
        """As `IQL.act`, with a new subgoal every `subgoal_steps` steps.

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
            chosen = self.propose(obs[rows], goal[rows], [generators[i] for i in rows.tolist()])
            memory = memory.index_copy(0, rows, chosen)
        return self._follow(obs, memory), memory

    @torch.no_grad()
    def propose(self, obs: Tensor, goal: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Sample M subgoals for each of R environments at once and choose one each: (R, *shape)."""
        s = self.settings
        count = s.n_diffusion_samples
        candidates = self.sample_subgoals(obs, goal, count, generators)  # (R, M, *shape)
        flat = candidates.flatten(0, 1)  # (R*M, *shape)
        repeat = [pad_rows(x.repeat_interleave(count, dim=0)) for x in (obs, goal)]
        flat = pad_rows(flat)
        rows = len(obs) * count
        reach = self.value(repeat[0], flat)[:rows].view(-1, count)
        remaining = self.value(flat, repeat[1])[:rows].view(-1, count)
        direct = self.value(pad_rows(obs), pad_rows(goal))[: len(obs)]
        radius = s.value_competence_radius if s.filter_subgoals else None
        chosen, _ = select_subgoals(candidates, goal, reach, remaining, direct, radius)
        return chosen

    def sample_subgoals(
        self, obs: Tensor, goal: Tensor, count: int, generators: list[torch.Generator]
    ) -> Tensor:
        """`count` samples of the diffuser for each environment: (R, count, *shape)."""
        shape = (self.subgoal_policy.steps, count, *obs.shape[1:])
        noise = [torch.randn(shape, generator=g, device=g.device) for g in generators]
        noise = torch.cat(noise, dim=1).to(obs.device)  # (T, R*count, *shape)
        state, goal = (x.repeat_interleave(count, dim=0) for x in (obs, goal))
        rows = len(state)
        noise = torch.stack([pad_rows(n) for n in noise])
        samples = self.subgoal_policy.sample(pad_rows(state), pad_rows(goal), noise)
        return samples[:rows].view(-1, count, *obs.shape[1:])
