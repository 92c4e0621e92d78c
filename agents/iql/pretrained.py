"""A subgoal policy that another run trained, behind this run's normaliser."""

import torch
from torch import Tensor, nn

from common.foundation.errors import UserError

# How far the two runs' normalisers may be apart, in standard deviations and as a ratio of them.
# Runs on the same data differ a little where entities drew other identities.
MAX_SHIFT, MAX_RATIO = 0.5, 2.0


class PretrainedSubgoals(nn.Module):
    """Has a subgoal policy's interface for observations that this run normalised.

    With x = (o - m) / d here and x' = (o - m') / d' there: x' = scale x + shift. On the same data
    scale is 1 and shift 0, exactly, and nothing changes.

    Args:
        policy: of the other run's shape. features: of the last axis of an observation.
    """

    def __init__(self, policy: nn.Module, features: int) -> None:
        super().__init__()
        self.policy = policy.requires_grad_(False)
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("shift", torch.zeros(features))

    @property
    def steps(self) -> int:
        """Diffusion steps of the policy."""
        return self.policy.steps

    def forward(self, obs: Tensor, goal: Tensor) -> Tensor:
        return self._back(self.policy(self._there(obs), self._there(goal)))

    def sample(self, state: Tensor, goal: Tensor, noise: Tensor) -> Tensor:
        """As `SubgoalDiffuser.sample`."""
        return self._back(self.policy.sample(self._there(state), self._there(goal), noise))

    def _there(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift

    def _back(self, x: Tensor) -> Tensor:
        return (x - self.shift) / self.scale

    def adopt(self, parameters: dict[str, Tensor], scale: Tensor, shift: Tensor) -> None:
        """Take the other run's parameters, with the way from our observations to its.

        Raises `UserError` where the two saw too different data, `RuntimeError` where shapes differ.
        """
        ratio = torch.maximum(scale, 1 / scale).max()
        if ratio > MAX_RATIO or shift.abs().max() > MAX_SHIFT:
            raise UserError(
                f"its observations were scaled up to {ratio:.3g} times as much and shifted by "
                f"{shift.abs().max():.3g} standard deviations; train both on the same dataset"
            )
        self.policy.load_state_dict(parameters)
        self.scale.copy_(scale)
        self.shift.copy_(shift)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict()`; that of a policy that this run trained itself is left aside."""
        if "scale" in state:
            self.load_state_dict(state)
