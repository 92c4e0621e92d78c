"""What every world offers: a simulator, rewards of stored rows, entities, a collector.

A `World` describes one environment without running it. It is small, picklable and free of the
simulator, so the training process can ask it for rewards and shapes, and worker processes can
receive it and call `make`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import gymnasium as gym
import numpy as np

from common.errors import UserError
from common.settings import setting

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CollectSettings:
    """How scripted policies are disturbed while they collect data.

    Attributes:
        dataset_type: "noisy" (Gaussian noise on the policy's actions) or "play" (none).
        min_action_norm: distance in metres to which a policy stretches shorter moves.
        p_random_action: probability that a step takes a uniformly random action.
        action_noise: upper end of the per-episode noise scale, in units of the action range.
        action_noise_smoothing: correlation of the noise; only used by plan-based policies.
    """

    dataset_type: str = setting(choices=("noisy", "play"), identity=False)
    min_action_norm: float = setting(low=0.0, identity=False)
    p_random_action: float = setting(low=0.0, high=1.0, identity=False)
    action_noise: float = setting(low=0.0, identity=False)
    action_noise_smoothing: float = setting(low=0.0, identity=False)


class Collector(Protocol):
    """A scripted data-collection agent of one environment."""

    def reset(self, obs: np.ndarray, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Start an episode; every later draw of the collector comes from `rng`."""

    def act(self, info: dict[str, Any]) -> np.ndarray:
        """Return the action (A,) float32 in [-1, 1], noise and random actions included."""

    def observe(self, obs: np.ndarray, info: dict[str, Any]) -> None:
        """Follow one environment step; draws the next target when the policy is done."""


class World(ABC):
    """One environment as the rest of the code sees it.

    Args:
        settings: the world's section of the configuration.
        max_episode_steps: steps after which an episode is truncated.
        multiview: whether images show two cameras instead of one.
    """

    name: ClassVar[str]  # its name in `task` and in gymnasium
    section: ClassVar[str]  # its section of `env_kwargs`
    Settings: ClassVar[type]
    packages: ClassVar[tuple[str, ...]]  # whose versions a dataset records
    metrics: ClassVar[tuple[str, ...]]  # what `summarise` returns
    reward_fields: ClassVar[tuple[str, ...]]  # dataset columns that `reward` reads

    state_dim: int
    action_dim: int
    num_entities: int  # the agent's row included
    entity_dim: int
    max_identities: int  # distinct identities of entities, the agent's included
    entity_names: tuple[str, ...]

    def __init__(self, settings: Any, *, max_episode_steps: int, multiview: bool = False) -> None:
        self.settings = settings
        self.max_episode_steps = max_episode_steps
        self.multiview = multiview

    def describe(self) -> dict[str, Any]:
        """Return what identifies this world, ready for JSON: the head of a dataset's header."""
        return {
            "environment": self.name,
            "settings": asdict(self.settings),
            "multiview": self.multiview,
            "max_episode_steps": self.max_episode_steps,
            "versions": {package: version(package) for package in self.packages},
        }

    def collect_overrides(self) -> list[str]:
        """Return the settings of `collect.py`, as overrides, that make data for this world."""
        return [f"task={self.name}"]

    @abstractmethod
    def make(self, pixels: bool = False) -> gym.Env:
        """Return the environment with its time limit; nothing is drawn until frames are wanted."""

    @abstractmethod
    def compatible(self, header: Mapping[str, Any]) -> str | None:
        """Return None if data with this header fits this world, else what differs, in one line."""

    @abstractmethod
    def dataset_columns(self, pixels: bool) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and type of one row of every stored column."""

    @abstractmethod
    def qpos_layout(self) -> dict[str, Any]:
        """Return which columns of `qpos` hold what."""

    @abstractmethod
    def reward(self, rows: Mapping[str, Tensor], goals: Mapping[str, Tensor]) -> Tensor:
        """Return the reward (B,) float32 of being at `rows` when `goals` (B, Q) are wanted."""

    @abstractmethod
    def state_entities(self, state: Tensor) -> Tensor:
        """Turn states (..., state_dim) into entity rows (..., num_entities, entity_dim)."""

    @abstractmethod
    def entities_state(self, entities: Tensor) -> Tensor:
        """Turn entity rows (..., num_entities, entity_dim) back into states (..., state_dim)."""

    def entity_positions(self, state: Tensor) -> Tensor:
        """Return the objects' positions (..., objects, P) in states (..., state_dim), as scaled
        there; the agent is left out. Raises `UserError` in a world whose states do not tell them.
        """
        raise UserError(f"task={self.name} does not tell the positions of its objects")

    @abstractmethod
    def collector(self, env: gym.Env, settings: CollectSettings) -> Collector:
        """Return the scripted agent that collects data in `env` (made by `make`)."""

    @abstractmethod
    def summarise(
        self, history: Sequence[Mapping[str, Any]], rewards: Sequence[float]
    ) -> dict[str, float]:
        """Reduce one finished episode (its step infos and rewards) to `metrics`."""
