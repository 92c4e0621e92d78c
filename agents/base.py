"""What every agent is and is built from, and a few words that all of them use."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from agents.learner import Learner
from common.data.buffer import Buffer

Metrics = dict[str, Tensor]  # name, prefixed by its network -> scalar tensor
Noise = tuple[Tensor, ...]  # what an update draws besides its batch

# Batches are padded to a multiple of this many rows when acting. Matrix products treat the last few
# rows of an odd batch differently; padded, a row's result does not depend on how many others are
# asked with it, so an episode has the same result in any company.
ROW_BLOCK = 32


@dataclass(frozen=True)
class ObservationSpec:
    """What an observation is, as far as networks need to know.

    Attributes:
        kind: "entities", "flat" or "image".
        shape: (N, D) for entities, (S,) for flat ones, (V*3, H, W) uint8 for images.
        views: V cameras. Of entities the first N/V belong to view 1 and so on; a flat observation
            is one vector after the other.
        explicit: leading features of a particle (position, scale, depth, transparency), which are
            projected apart from its visual features; 0 = all features together.
    """

    kind: str
    shape: tuple[int, ...]
    views: int = 1
    explicit: int = 0

    @property
    def features(self) -> int:
        """D of entities, S of a flat observation."""
        return self.shape[-1]

    @property
    def ordered(self) -> bool:
        """Whether rows of two observations of an episode belong together; not so for particles."""
        return self.explicit == 0


class Networks(Protocol):
    """Makes the networks that fit an observation and an action; see `agents.networks.families`."""

    @property
    def fills_threads(self) -> bool:
        """Whether one update keeps two CPU threads busy, so that a second process gains nothing."""

    @property
    def acting_threads(self) -> int:
        """CPU threads that a policy's call for some environments keeps busy; 0 = all there are."""

    def policy(self) -> nn.Module:
        """pi(s, g): (B, *shape) twice -> (B, A) in (-1, 1)."""

    def value(self) -> nn.Module:
        """V(s, g): (B, *shape) twice -> (B,)."""

    def critic(self, members: int) -> nn.Module:
        """K members of Q(s, a, g): (B, *shape), (B, A), (B, *shape) -> (K, B)."""

    def subgoal_policy(self) -> nn.Module:
        """Deterministic subgoal of (s, g): (B, *shape) twice -> (B, *shape)."""

    def diffuser(self, steps: int) -> nn.Module:
        """Diffusion of subgoals, see `agents.networks.diffusion.SubgoalDiffuser`."""

    def window_diffuser(
        self,
        slots: int,
        steps: int,
        size: dict[str, Any],
        *,
        predicts_noise: bool,
        closed_gates: bool,
    ) -> nn.Module:
        """Diffusion of windows, see `agents.ecdiffuser.windows.WindowDiffuser`.

        `size` has the fields of `EITSettings` that differ from other networks'.
        """


@dataclass(frozen=True)
class AgentContext:
    """Everything an agent is built from besides its own section of the settings.

    Attributes:
        spec: of one observation. action_dim: A. networks: makes the networks that fit both.
        gamma, lr, lr_decay_steps, grad_clip_norm: learning settings that all agents share.
        average: gives the mean of a tensor over the processes that share each batch; None = one
            process has it all.
        fused_adam: see `Learner`.
    """

    spec: ObservationSpec
    action_dim: int
    networks: Networks
    gamma: float
    lr: float
    lr_decay_steps: int
    grad_clip_norm: float
    device: torch.device
    average: Callable[[Tensor], Tensor] | None = None
    fused_adam: bool | str = "auto"

    def learner(
        self, network: nn.Module, lr: float | None = None, max_norm: float | None = None
    ) -> Learner:
        """The optimiser of one network; its rate and gradient norm if they are its own."""
        lr, max_norm = lr or self.lr, max_norm or self.grad_clip_norm
        options = self.lr_decay_steps, self.average, self.fused_adam
        return Learner(network, lr, max_norm, *options)

    def batch_mean(self, x: Tensor) -> Tensor:
        """Mean () over the whole batch of what has no gradient, given this process's share of it.

        For what a loss does not depend on linearly: of linear terms, gradients are averaged.
        """
        mean = x.mean()
        return mean if self.average is None else self.average(mean)


class Agent(ABC):
    """What training and evaluation ask of an agent.

    Letters: B batch, R environments, A action size; observations and goals are (B, *shape).

    Attributes:
        Settings: dataclass of its section in `config.yaml`, whose name is `name`.
        uses_rewards: whether its batches have rewards.
        learning_only: parts of `state_dict` that acting does not read.
        shown: metrics beside the progress bar, by their label there.
        pursues_subgoals: whether `pursued` may be other than the goal.
        batch_size: of an update; None is the setting of that name.
        learners: what it learns, by name.
    """

    Settings: ClassVar[type]
    name: ClassVar[str]
    uses_rewards: ClassVar[bool] = True
    learning_only: ClassVar[tuple[str, ...]] = ()
    shown: ClassVar[dict[str, str]]
    pursues_subgoals: bool = False
    batch_size: int | None = None

    def __init__(self, settings: Any, context: AgentContext) -> None:
        self.settings, self.context = settings, context
        self.learners: dict[str, Learner] = {}

    # --- learning ----------------------------------------------------------------------------

    def prepare(self, buffer: Buffer) -> None:  # noqa: B027 (most agents need nothing)
        """Take from the data what learning and acting need; called before the first update."""

    @property
    def sampler(self) -> Callable[[Buffer, int, torch.Generator], Any]:
        """Draws a batch of so many samples; a pure function that other processes can be sent."""
        return Buffer.sample

    def draw_noise(self, batch: Any, generator: torch.Generator) -> Noise:
        """The random numbers of an update on `batch`: here none.

        Apart from `update`, which is then a function of tensors that can be compiled and captured.
        """
        return ()

    @abstractmethod
    def update(self, batch: Any, noise: Noise) -> Metrics:
        """One update on one batch."""

    def _minimise(self, name: str, loss: Tensor, metrics: Metrics) -> Metrics:
        norm = self.learners[name].step(loss)
        return {key: x.detach() for key, x in metrics.items()} | {f"{name}/grad_norm": norm}

    def calibrate(self, buffer: Buffer) -> None:  # noqa: B027
        """Derive from the data and what was learned what acting needs besides: here nothing.

        Called before every evaluation and checkpoint of a training run.
        """

    # --- acting ------------------------------------------------------------------------------

    def begin(self, goal: Tensor) -> Tensor:
        """The memory of an episode with this goal (*shape) before its first step; here the goal.

        Of any shape, the same for all episodes.
        """
        return goal

    @abstractmethod
    def act(
        self,
        obs: Tensor,
        goal: Tensor,
        step: Tensor,
        memory: Tensor,
        generators: list[torch.Generator],
    ) -> tuple[Tensor, Tensor]:
        """Actions of R environments: (R, A) in [-1, 1], and their memories.

        Args:
            obs, goal: (R, *shape), normalised.
            step: (R,) environment steps already done in each episode.
            memory: (R, ...) what the last call returned, at step 0 what `begin` did.
            generators: one per environment, so that an episode's draws are its own.
        """

    def pursued(self, memory: Tensor, goal: Tensor) -> Tensor:
        """What an episode with this memory and goal pursues now: (*shape); here its memory."""
        return memory

    # --- files -------------------------------------------------------------------------------

    def state_dict(self) -> dict:
        """Everything that learning changes, as nested dictionaries of tensors."""
        return {name: learner.state_dict() for name, learner in self.learners.items()}

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""
        for name, learner in self.learners.items():
            learner.load_state_dict(state[name])


def pad_rows(x: Tensor) -> Tensor:
    """Repeat the first row until there is a multiple of `ROW_BLOCK`: (R, ...) -> (R', ...)."""
    missing = -len(x) % ROW_BLOCK
    return torch.cat([x, x[:1].expand(missing, *x.shape[1:])]) if missing else x
