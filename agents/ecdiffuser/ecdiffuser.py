"""EC-Diffuser: imitation by diffusion of short windows of actions and entity sets.

Qi et al. 2025. One diffusion model generates the next few actions together with
the entity sets they lead through, from the state to the goal; the first action or actions of the
window are executed, then it is generated anew. No rewards, no values, no subgoals.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from agents.base import Agent, AgentContext, Metrics, Timestep, pad_rows
from agents.ecdiffuser.windows import Scaling, WindowDiffuser
from agents.learner import flatten_parameters
from common.data.batches import Tree, Windows
from common.data.buffer import Buffer
from common.data.wants import Sequences
from common.foundation.errors import UserError
from common.settings.schema import setting

ONLY_SETS = "agent=ecdiffuser generates sets of entities; use obs=ec_state, ec_state_gen or dlp"


@dataclass(frozen=True)
class ECDiffuserSettings:
    """Section `ecdiffuser`."""

    horizon: int = setting(low=3)
    exe_steps: int = setting(low=1)
    n_diffusion_steps: int = setting(low=1)
    embed_dim: int | None = setting(low=1)
    h_dim: int | None = setting(low=1)
    n_head: int | None = setting(low=1)
    n_layers: int | None = setting(low=1)
    dropout: float | None = setting(low=0.0, high=0.9)
    action_weight: float = setting(low=0.0)
    loss_discount: float = setting(above=0.0, high=1.0)
    predict: str = setting(choices=("x0", "epsilon"))
    loss: str = setting(choices=("l1", "l2"))
    goal: str = setting(choices=("policy", "final"))
    normalizer: str = setting(choices=("limits", "standard"))
    lr: float = setting(above=0.0)
    batch_size: int | None = setting(low=1)
    grad_clip_norm: float | None = setting(above=0.0)
    ema_decay: float = setting(low=0.0, below=1.0)
    ema_every: int = setting(low=1)
    ema_start: int = setting(low=0)
    adaln_zero: bool = setting()


class ECDiffuser(Agent):
    """A diffuser of windows, and the average of its weights, which acts.

    Letters as in `agents.ecdiffuser.windows`, and R environments.
    """

    Settings = ECDiffuserSettings
    name = "ecdiffuser"
    losses: ClassVar[tuple[str, ...]] = ("window_loss",)
    learning_only: ClassVar[tuple[str, ...]] = ("diffuser",)
    shown: ClassVar[dict[str, str]] = {"loss": "diffuser/loss", "action": "diffuser/first_action"}

    def __init__(self, settings: ECDiffuserSettings, context: AgentContext) -> None:
        super().__init__(settings, context)
        if settings.exe_steps >= settings.horizon:
            raise UserError(
                f"ecdiffuser.exe_steps={settings.exe_steps} is too large; allowed: at most "
                f"ecdiffuser.horizon - 1 = {settings.horizon - 1}"
            )
        self.batch_size = settings.batch_size
        self.wants = Sequences(settings.horizon, settings.goal == "final")
        self.diffuser = self._make_diffuser().to(context.device)
        max_norm = settings.grad_clip_norm or math.inf
        self.learners["diffuser"] = context.learner(self.diffuser, settings.lr, max_norm)
        self.average = self._make_diffuser().to(context.device)
        self.average.load_state_dict(self.diffuser.state_dict())
        self.average_flat = flatten_parameters(self.average.requires_grad_(False))
        self.obs_scaling = Scaling(context.spec.features).to(context.device)
        self.action_scaling = Scaling(context.action_dim).to(context.device)
        self.scaled = False  # whether they know the data
        self.set_weight, self.action_weight = self._make_weights()

    def _make_diffuser(self) -> WindowDiffuser:
        s, context = self.settings, self.context
        if context.spec.kind != "entities":
            raise UserError(ONLY_SETS)
        size = {name: getattr(s, name) for name in ("embed_dim", "h_dim", "n_head", "dropout")}
        size["n_diffuser_layers"] = s.n_layers
        given = {name: value for name, value in size.items() if value is not None}
        eit = replace(context.networks.eit, **given)
        misfit = eit.misfit("ecdiffuser")
        if misfit:
            raise UserError(misfit)
        choices = {"predicts_noise": s.predict == "epsilon", "closed_gates": s.adaln_zero}
        shape = context.spec, context.action_dim, eit, s.horizon, s.n_diffusion_steps
        return WindowDiffuser(*shape, **choices)

    def _make_weights(self) -> tuple[Tensor, Tensor]:
        """Weights of free sets (H-2, 1, 1) and of actions (H, 1) in the loss."""
        s = self.settings
        discount = s.loss_discount ** torch.arange(s.horizon, device=self.context.device)
        discount = discount / discount.mean()
        actions = torch.cat([torch.full_like(discount[:1], s.action_weight), discount[1:]])
        return discount[1:-1, None, None], actions[:, None]

    # --- losses ------------------------------------------------------------------------------

    def window_loss(self, batch: Windows, noise: Tree) -> tuple[Tensor, Metrics]:
        """L = E[ w |x_theta(x_t, s, g, t) - x| ], x_t = signal_t x + noise_t eps, t in 0..T-1.

        Of windows x from state s to goal g, all scaled; eps (B, F). The mean runs over the sets
        of s and g too, whose error is zero. w = action_weight for the first action; for the rest
        discount^j in slot j, divided by the mean of that over the slots.
        """
        t, eps = noise["t"], noise["eps"]
        sets, actions = self.obs_scaling(batch.obs), self.action_scaling(batch.action)
        clean = self.diffuser.join(sets[:, 1:-1], actions)
        noisy = self.diffuser.diffuse(clean, t, eps)
        predicted = self.diffuser(sets[:, 0], sets[:, -1], noisy, t)
        difference = predicted - (eps if self.diffuser.predicts_noise else clean)
        error = difference.abs() if self.settings.loss == "l1" else difference.square()
        set_error, action_error = self.diffuser.split(error)
        total = (self.set_weight * set_error).sum() + (self.action_weight * action_error).sum()
        loss = total / (sets.numel() + actions.numel())
        return loss, {
            "diffuser/loss": loss,
            "diffuser/first_action": action_error[:, 0].mean(),
            "diffuser/other_actions": action_error[:, 1:].mean(),
            "diffuser/states": set_error.mean(),
        }

    # --- learning ----------------------------------------------------------------------------

    def prepare(self, buffer: Buffer) -> None:
        """Take the scalings from the data, unless they came with the weights.

        Of normalised and clipped observations, so that outliers do not stretch the limits
        (docs/differences.md).
        """
        if buffer.goals.policy.random and self.settings.goal == "policy":
            raise UserError(
                "agent=ecdiffuser imitates how the data went on to the goal, so that goals of "
                "other episodes make no sense; set p_randgoal_policy=0 or ecdiffuser.goal=final"
            )
        if self.scaled:
            return
        action = buffer.action
        if self.settings.normalizer == "limits":
            self.obs_scaling.fit_limits(*buffer.limits())
            self.action_scaling.fit_limits(action.amin(dim=0), action.amax(dim=0))
        else:  # observations are as they should be
            self.action_scaling.fit_moments(action.mean(dim=0), action.var(dim=0, correction=0))
        self.scaled = True

    def draw_noise(self, batch: Windows, generator: torch.Generator) -> TensorDict:
        """Times t (B,) in 0..T-1, and eps (B, F) standard normal."""
        size, _, entities = batch.obs.shape[:3]
        device, shape = batch.obs.device, (size, self.diffuser.count(entities))
        t = torch.randint(self.diffuser.steps, (size,), generator=generator, device=device)
        eps = torch.randn(shape, generator=generator, device=device)
        return TensorDict({"t": t, "eps": eps}, batch_size=[size])

    def update(self, batch: Windows, noise: Tree) -> Metrics:
        """The diffuser, then the average of its weights."""
        metrics = self._minimise("diffuser", *self.window_loss(batch, noise))
        learner = self.learners["diffuser"]
        self.average_flat.lerp_(learner.flat.detach(), self._share(learner.moments["step"]))
        return metrics

    def _share(self, done: Tensor) -> Tensor:
        """Share of the weights in their average after so many updates, both ().

        1 up to `ema_start`, then 1 - decay at every `ema_every`-th update. Without a branch, so
        that an update can be captured.
        """
        s = self.settings
        starting, due = (done < s.ema_start).float(), (done % s.ema_every == 0).float()
        return starting + (1 - starting) * due * (1 - s.ema_decay)

    # --- acting ------------------------------------------------------------------------------

    def begin(self, goal: Tensor) -> TensorDict:
        """An empty plan, the actions to come: (exe_steps, A)."""
        shape = self.settings.exe_steps, self.context.action_dim
        return TensorDict({"plan": goal.new_zeros(shape)})

    @torch.no_grad()
    def act(self, timestep: Timestep) -> tuple[Tensor, TensorDict]:
        """The plans' next actions; plans that were executed are made anew, in one call."""
        plan, place = timestep.memory["plan"], timestep.step % self.settings.exe_steps
        rows = (place == 0).nonzero().squeeze(1)
        if len(rows):
            own = [timestep.generators[i] for i in rows.tolist()]
            fresh = self.plan(timestep.obs[rows], timestep.goal[rows], own)
            plan = plan.index_copy(0, rows, fresh)
        action = plan[torch.arange(len(place), device=place.device), place]
        return action, TensorDict({"plan": plan}, batch_size=place.shape)

    def plan(self, obs: Tensor, goal: Tensor, generators: list[torch.Generator]) -> Tensor:
        """The next `exe_steps` actions of R environments, of one sample each: (R, exe_steps, A).

        With limits no action leaves the range of the data, since samples are clipped to [-1, 1].
        """
        state, target = (pad_rows(self.obs_scaling(x)) for x in (obs, goal))
        shape = (self.average.steps, 1, self.average.count(obs.shape[1]))
        noise = [torch.randn(shape, generator=g, device=g.device) for g in generators]
        noise = torch.cat(noise, dim=1).to(obs.device)  # (T, R, F)
        window = self.average.sample(state, target, torch.stack([pad_rows(n) for n in noise]))
        actions = self.average.split(window[: len(obs)])[1][:, : self.settings.exe_steps]
        if self.settings.normalizer == "limits":
            actions = actions.clamp(-1, 1)
        return self.action_scaling.inverse(actions).clamp(-1, 1)

    # --- files -------------------------------------------------------------------------------

    def state_dict(self) -> dict:
        """As `Agent.state_dict`, with the average of the weights and the scalings."""
        return super().state_dict() | {
            "average": {"module": self.average.state_dict()},
            "scaling": {
                "obs": self.obs_scaling.state_dict(),
                "action": self.action_scaling.state_dict(),
            },
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.average.load_state_dict(state["average"]["module"])
        self.obs_scaling.load_state_dict(state["scaling"]["obs"])
        self.action_scaling.load_state_dict(state["scaling"]["action"])
        self.scaled = True
