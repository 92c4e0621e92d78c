"""The interface of agents, and what they are built from."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from agents.learner import Learner
from agents.networks.families import Networks
from agents.observations.spec import ObservationSpec
from common.data.batches import Tree
from common.data.buffer import Buffer
from common.data.wants import Transitions, Wants

Metrics = dict[str, Tensor]  # name, prefixed by its network -> scalar tensor

# Batches are padded to a multiple of this many rows when acting. Matrix products treat the last few
# rows of an odd batch differently; padded, a row's result does not depend on how many others are
# asked with it, so an episode has the same result in any company.
ROW_BLOCK = 32


@dataclass(frozen=True)
class AgentContext:
    """Everything an agent is built from besides its own section of the settings.

    Attributes:
        spec: of one observation. action_dim: A. networks: makes the networks that fit both.
        gamma, lr, lr_decay_steps, grad_clip_norm: learning settings that all agents share.
        average: gives the mean of a tensor over the processes that share each batch; None = one
            process has it all.
        fused_adam: see `Learner`.
        reward_range: smallest and largest reward. burst: updates between two stretches of acting.
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
    reward_range: tuple[float, float] = (-1.0, 0.0)
    burst: int = 1

    def learner(
        self,
        network: nn.Module,
        lr: float | None = None,
        max_norm: float | None = None,
        ema_decay: float = 0.0,
    ) -> Learner:
        """The optimiser of one network; its rate and gradient norm if they are its own."""
        lr, max_norm = lr or self.lr, max_norm or self.grad_clip_norm
        options = self.lr_decay_steps, self.average, self.fused_adam, ema_decay
        return Learner(network, lr, max_norm, *options)

    def batch_mean(self, x: Tensor) -> Tensor:
        """Mean () over the whole batch of what has no gradient, given this process's share of it.

        For what a loss does not depend on linearly: of linear terms, gradients are averaged.
        """
        mean = x.mean()
        return mean if self.average is None else self.average(mean)


@dataclass(frozen=True)
class Timestep:
    """One moment of R environments, in which an agent acts.

    Attributes:
        obs: (R, *shape), normalised. goal: (R, *shape), or None in worlds without goals.
        step: (R,) environment steps already done in each episode.
        memory: (R,) what the last call returned, at step 0 what `Agent.begin` did.
        generators: one per environment, so that an episode's draws are its own.
        explore: whether to act so that something is learned from it; False in evaluations.
        tell: is told, if somebody listens, of decisions in some of the rows: a heading and then a
            line for each of these rows.
        episode: (R,) number of each episode in its run, from 0.
    """

    obs: Tensor
    goal: Tensor | None
    step: Tensor
    memory: Tree
    generators: list[torch.Generator]
    explore: bool = False
    tell: Callable[[Tensor, list[str]], None] | None = None
    episode: Tensor | None = None


class Agent(ABC):
    """Everything that training and evaluation ask of an agent.

    Letters: B batch, R environments, A action size; observations and goals are (B, *shape).

    Attributes:
        Settings: dataclass of its section in `config.yaml`, whose name is `name`.
        losses: methods that compute its losses, and may be compiled.
        judges: learners of `update_critics`, if an update has two halves; the other half,
            `update_policies`, reads what these learned, and they nothing of it.
        learning_only: parts of `state_dict` that acting does not read.
        shown: metrics beside the progress bar, by their label there.
        value_range: smallest and largest value that there can be; None if it estimates none.
        learns_online: whether it learns from what it does, and not from a dataset.
        wants: its law of batches. batch_size: of an update; None is the setting of that name.
        pursues_subgoals: whether `pursued` may be other than the goal.
        explains: whether it tells of its decisions, see `Timestep.tell`.
        learners: what it learns, by name.
    """

    Settings: ClassVar[type]
    name: ClassVar[str]
    losses: ClassVar[tuple[str, ...]]
    judges: ClassVar[tuple[str, ...]] = ()
    learning_only: ClassVar[tuple[str, ...]] = ()
    shown: ClassVar[dict[str, str]]
    value_range: tuple[float, float] | None = None
    learns_online: ClassVar[bool] = False
    wants: Wants = Transitions()
    batch_size: int | None = None
    pursues_subgoals: bool = False
    explains: bool = False

    def __init__(self, settings: Any, context: AgentContext) -> None:
        self.settings, self.context = settings, context
        self.learners: dict[str, Learner] = {}

    # --- learning ----------------------------------------------------------------------------

    def prepare(self, buffer: Buffer) -> None:  # noqa: B027 (most agents need nothing)
        """Take from the data what learning and acting need; called before the first update."""

    def draw_noise(self, batch: Tree, generator: torch.Generator) -> Tree:
        """The random numbers (B, ...) of an update on `batch`: here none.

        Apart from `update`, which is then a function of tensors that can be compiled and captured.
        """
        return TensorDict(batch_size=batch.batch_size)

    @abstractmethod
    def update(self, batch: Tree, noise: Tree) -> Metrics:
        """One update on one batch."""

    def _minimise(self, name: str, loss: Tensor, metrics: Metrics) -> Metrics:
        norm = self.learners[name].step(loss)
        return {key: x.detach() for key, x in metrics.items()} | {f"{name}/grad_norm": norm}

    def calibrate(self, buffer: Buffer) -> None:  # noqa: B027
        """Derive from the data and what was learned what acting needs besides: here nothing.

        Called before every evaluation and checkpoint of a training run.
        """

    # --- acting ------------------------------------------------------------------------------

    def begin(self, goal: Tensor | None) -> Tree:
        """The memory of an episode with this goal (*shape) before its first step; here empty.

        Of the same shapes for all episodes.
        """
        return TensorDict()

    @abstractmethod
    def act(self, timestep: Timestep) -> tuple[Tensor, Tree]:
        """Actions of R environments: (R, A) in [-1, 1], and their memories (R,)."""

    def pursued(self, memory: Tree, goal: Tensor | None) -> Tensor | None:
        """Aim of an episode with this memory and goal just now: (*shape); here the goal."""
        return goal

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
