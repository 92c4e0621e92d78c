"""Subgoal IQL, the paper's method: IQL pursues subgoals that a diffusion model proposes.

The two levels learn apart from the same batches (no value weighting of the subgoals) and meet only
when acting: many subgoals are sampled, those that V thinks out of reach are dropped, and the one
nearest to the goal is pursued. As a comparison the subgoal policy may be a deterministic one,
learned by advantage-weighted regression.
"""

from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from agents.base import AgentContext, Metrics, pad_rows
from agents.iql.hierarchy import Hierarchy, HierarchySettings
from agents.iql.pretrained import PretrainedSubgoals
from agents.iql.subgoals import Proposal
from common.data.batches import Batch, Tree
from common.data.buffer import Buffer
from common.foundation.errors import UserError
from common.settings.schema import setting

# For value_competence_radius=auto: how many pairs of states V rates, and the share of them that may
# lie beyond the radius it derives.
CALIBRATION_PAIRS = 1024
CALIBRATION_SHARE = 0.1


@dataclass(frozen=True)
class SGIQLSettings(HierarchySettings):
    """Section `sgiql`."""

    subgoal_policy_type: str = setting(choices=("diffusion", "standard"))
    n_diffusion_steps: int = setting(low=1)
    n_diffusion_samples: int = setting(low=1)
    value_competence_radius: float | str = setting(high=0.0, words=("auto",))
    filter_subgoals: bool = setting()
    load_pretrained_goal_pi: bool = setting()
    goal_pi_chkpt: str | None = setting()


class SGIQL(Hierarchy):
    """V, two critics, a policy and a subgoal policy: a diffuser, or a deterministic one (AWR).

    Letters: B batch, R environments, M candidates, T diffusion steps.
    """

    Settings = SGIQLSettings
    name = "sgiql"

    def __init__(self, settings: SGIQLSettings, context: AgentContext) -> None:
        super().__init__(settings, context)
        self.derived_radius: Tensor | None = None  # (), for value_competence_radius=auto

    def _make_subgoal_policy(self) -> nn.Module:
        if self._samples:
            network = self.context.networks.diffuser(self.settings.n_diffusion_steps)
        else:
            network = super()._make_subgoal_policy()
        if self.learns_subgoals:
            return network
        return PretrainedSubgoals(network, self.context.spec.features)

    @property
    def learns_subgoals(self) -> bool:
        return not self.settings.load_pretrained_goal_pi

    @property
    def _samples(self) -> bool:
        return self.settings.subgoal_policy_type == "diffusion"

    # --- losses ------------------------------------------------------------------------------

    def subgoal_loss(self, batch: Batch, noise: Tree) -> tuple[Tensor, Metrics]:
        """L = E[ |eps - eps_theta(s, c_t, g, t)| ]: c the state k steps on, t uniform in 1..T.

        Of a deterministic subgoal policy, that of `Hierarchy`.
        """
        if not self._samples:
            return super().subgoal_loss(batch, noise)
        sets = batch.obs, batch.policy_subgoal, batch.policy_goal
        loss = self.subgoal_policy.loss(*sets, noise["t"], noise["eps"])
        return loss, {"subgoal/loss": loss}

    # --- learning ----------------------------------------------------------------------------

    def draw_noise(self, batch: Batch, generator: torch.Generator) -> TensorDict:
        """Of the diffuser: times t (B,) in 0..T-1, and eps (B, *shape) standard normal."""
        if not (self._samples and self.learns_subgoals):
            return super().draw_noise(batch, generator)
        obs, size = batch.obs, len(batch)
        options = {"generator": generator, "device": obs.device}
        t = torch.randint(self.subgoal_policy.steps, (size,), **options)
        return TensorDict({"t": t, "eps": torch.randn(obs.shape, **options)}, batch_size=[size])

    @torch.no_grad()
    def calibrate(self, buffer: Buffer) -> None:
        """Derive the radius of `value_competence_radius=auto` from the data and V as it is now.

        R = the 10 % quantile of V(s_t, s_{t+k}) over a fixed sample of states k = subgoal_k steps
        apart. Subgoals are learned from such pairs, so all of them were within reach: what V rates
        worse than nine in ten of them is far, or not what V knows.
        """
        generator = torch.Generator(buffer.obs.device).manual_seed(0)
        pairs = buffer.pairs(CALIBRATION_PAIRS, self.settings.subgoal_k, generator)
        device = self.context.device  # the data may be elsewhere
        values = self.learners["value"].averaged(*(x.to(device) for x in pairs))
        self.derived_radius = values.quantile(CALIBRATION_SHARE)

    # --- acting ------------------------------------------------------------------------------

    @torch.no_grad()
    def propose(self, obs: Tensor, goal: Tensor, generators: list[torch.Generator]) -> Proposal:
        """Sample M subgoals for each of R environments at once and choose one each."""
        if not self._samples:
            return super().propose(obs, goal, generators)
        count = self.settings.n_diffusion_samples
        candidates = self.sample_subgoals(obs, goal, count, generators)  # (R, M, *shape)
        radius = self.radius if self.settings.filter_subgoals else None
        return self.choose(candidates, obs, goal, radius)

    @property
    def radius(self) -> float:
        """The competence radius R, given or derived."""
        given = self.settings.value_competence_radius
        if given != "auto":
            return given
        if self.derived_radius is None:
            raise UserError(
                "sgiql.value_competence_radius=auto needs V's own scale, which checkpoints of "
                "agent=sgiql hold and this one does not; give a number such as -30"
            )
        return float(self.derived_radius)

    def sample_subgoals(
        self, obs: Tensor, goal: Tensor, count: int, generators: list[torch.Generator]
    ) -> Tensor:
        """`count` samples of the diffuser for each environment: (R, count, *shape)."""
        policy = self.acting_subgoal_policy
        shape = (policy.steps, count, *obs.shape[1:])
        noise = [torch.randn(shape, generator=g, device=g.device) for g in generators]
        noise = torch.cat(noise, dim=1).to(obs.device)  # (T, R*count, *shape)
        state, goal = (x.repeat_interleave(count, dim=0) for x in (obs, goal))
        rows = len(state)
        noise = torch.stack([pad_rows(n) for n in noise])
        samples = policy.sample(pad_rows(state), pad_rows(goal), noise)
        return samples[:rows].view(-1, count, *obs.shape[1:])

    # --- files -------------------------------------------------------------------------------

    def state_dict(self) -> dict:
        """As `IQL.state_dict`, with a pretrained subgoal policy and the derived radius."""
        state = super().state_dict()
        if self.settings.load_pretrained_goal_pi:
            state["subgoal"] = {"module": self.subgoal_policy.state_dict()}
        if self.derived_radius is not None:
            state["calibration"] = {"radius": self.derived_radius}
        return state

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned; see `Hierarchy.load_state_dict`."""
        super().load_state_dict(state)
        self.derived_radius = state.get("calibration", {}).get("radius")
        if self.settings.load_pretrained_goal_pi and "subgoal" in state:
            self.subgoal_policy.restore(state["subgoal"]["module"])
