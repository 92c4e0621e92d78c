"""Interface of worlds, with goals and without.

A `World` describes one environment without running it. It is small, picklable and free of the
simulator, so the training process can ask it for shapes and rewards, and worker processes can
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

from common.foundation.errors import UserError
from common.foundation.registry import load
from common.settings.schema import CollectSettings, show
from envs.columns import fit
from envs.environment import check_action

if TYPE_CHECKING:
    from torch import Tensor


class EpisodeRejected(Exception):
    """A collector found its episode unfit to be stored: it begins again with other draws."""


class Collector(Protocol):
    """A scripted data-collection agent of one environment."""

    def reset(self, obs: np.ndarray, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Start an episode; every later draw of the collector comes from `rng`."""

    def act(self, info: dict[str, Any]) -> np.ndarray:
        """Return the action (A,) float32, noise included; may raise `EpisodeRejected`."""

    def observe(self, obs: np.ndarray, info: dict[str, Any]) -> None:
        """Follow one environment step; draws the next target when the policy is done."""


@dataclass(frozen=True)
class ActionSpec:
    """Actions as agents and datasets hold them: rows (A,) float32."""

    size: int  # A
    discrete: bool = False  # one-hot rows, one of A choices; else numbers in [-1, 1]


class World(ABC):
    """One environment as the rest of the code sees it.

    Args:
        settings: the world's section of the configuration.
        max_episode_steps: steps after which an episode is truncated.
        multiview: whether images show two cameras instead of one.
    """

    name: str  # in `task` and in datasets
    section: ClassVar[str]  # its section of `env_kwargs`
    Settings: ClassVar[type]
    environment: ClassVar[str]  # its Gymnasium class, "module:Class", not to import the simulator
    policies: ClassVar[str]  # its `Collector`, likewise: made from an environment and settings
    dataset: ClassVar[str]  # to train on, if the settings name none
    episode_steps: ClassVar[int] = 1000  # limit of an episode, if the settings have none
    data_folders: ClassVar[tuple[str, ...]] = ()  # where its files may lie besides `data_dir`
    state_column: ClassVar[str] = "state_observations"  # of datasets: the state vectors
    eval_tasks: ClassVar[tuple[int, ...]] = ()  # ids of fixed evaluation tasks, if it has any
    collect_mode: str = "data_collection"  # the mode that makes data for this world
    of_data: ClassVar[tuple[str, ...]] = ()  # settings that data and world have to share
    packages: ClassVar[tuple[str, ...]]  # whose versions a dataset records
    metrics: ClassVar[tuple[str, ...]]  # what `summarise` returns
    headline: ClassVar[str] = "success"  # the metric of which more is better, above all others
    needs_opengl: ClassVar[bool] = True  # whether frames are drawn by a graphics driver
    in_process: ClassVar[bool] = False  # whether a worker process costs more than its steps
    reward_range: tuple[float, float] = (-1.0, 0.0)  # that agents bound their values by

    actions: ActionSpec
    state_dim: int

    def __init__(self, settings: Any, *, max_episode_steps: int, multiview: bool = False) -> None:
        self.settings = settings
        self.max_episode_steps = max_episode_steps
        self.learning_steps = max_episode_steps  # of an episode that an agent learns from online
        self.multiview = multiview

    @classmethod
    def defaults(cls, task: str, settings: Any) -> dict[str, Any]:
        """Return what `null` in `config.yaml` stands for, by key, in a world of these settings."""
        return {"train_dataset_name": cls.dataset, "max_episode_steps": cls.episode_steps}

    @classmethod
    def of_task(cls, task: str, settings: Any, **arguments: Any) -> World:
        """Return the world of a `task` that is registered with this class; most have just one."""
        return cls(settings, **arguments)

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

    def check_collects(self) -> None:
        """Raise `UserError` where scripted policies collect no data."""
        if "data_collection" not in self.settings.mode:
            given = f"env_kwargs.{self.section}.mode={self.settings.mode}"
            advice = " ".join(self.collect_overrides())
            raise UserError(f"{given} collects nothing; set {advice}")

    def download_command(self) -> str | None:
        """Return the command that fetches this world's data, or None if they are collected."""
        return None

    def observation_problem(self, kind: str, pixels: bool) -> str | None:
        """Return why an agent cannot see this world so, with what to do, or None if it can.

        `kind` is that of its networks, see `agents.base.ObservationSpec`; `pixels` says whether it
        observes images.
        """
        return None

    def make(self, pixels: bool = False) -> gym.Env:
        """Return the environment with its time limit; it takes actions as `actions` says.

        Of a discrete row it takes the largest. Nothing is drawn until frames are wanted.
        """
        env = self.simulator(pixels)
        if self.actions.discrete:
            first, rows = int(env.action_space.start), gym.spaces.Box(0, 1, (self.actions.size,))
            env = gym.wrappers.TransformAction(env, lambda row: first + choice(row, rows), rows)
        return gym.wrappers.TimeLimit(env, self.max_episode_steps)

    @abstractmethod
    def simulator(self, pixels: bool) -> gym.Env:
        """Return the bare environment: no time limit, actions of its own kind.

        An `envs.environment.Environment` that observes images if `pixels`, else states. Besides
        Gymnasium's methods it has `frame()`, a picture (height, width, 3) uint8 for people; each
        info has `state_obs`, the state (state_dim,), and the stored columns by name.
        """

    def compatible(self, header: Mapping[str, Any]) -> str | None:
        """Return None if data with this header fits this world, else what differs, in one line."""
        if header["environment"] != self.name:
            return f"the data is of environment {header['environment']}, not of {self.name}"
        for key in self.of_data:
            have, want = show(header["settings"][key]), show(getattr(self.settings, key))
            if have != want:
                return f"the data has {key}={have}, this environment {key}={want}"
        return None

    def adopt(self, header: Mapping[str, Any]) -> World:
        """Return this world as it reads data with this header, which is compatible."""
        return self

    @abstractmethod
    def dataset_columns(self, pixels: bool) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and type of one row of every stored column."""

    def qpos_layout(self) -> dict[str, Any]:
        """Return which columns [first, end) of `qpos` hold what, in a world that stores it."""
        return {}

    def recognise(self, sample: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return what a header says of data of this world that others recorded, without a header.

        It is `describe`, without versions, and `pixels`, `columns`, `qpos_layout`. `sample` has the
        first rows (R, ...) of every column; settings that do not show in them are taken to be this
        world's. Raises `UserError` if a column cannot be of this world.
        """
        expected = self.dataset_columns(pixels=True)
        for name in ("actions", "terminals"):
            if name not in sample:
                raise UserError(f"column {name} is missing (there are {', '.join(sample)})")
        settings = " ".join(self.collect_overrides())
        columns = {name: fit(name, rows, expected, settings) for name, rows in sample.items()}
        images = columns.get("observations", {"dtype": "", "shape": ()})
        return self.describe() | {
            "multiview": len(images["shape"]) == 4,
            "versions": {},
            "pixels": images["dtype"] == "uint8",
            "columns": columns,
            "qpos_layout": self.qpos_layout(),
        }

    def statistics(
        self, columns: Mapping[str, np.ndarray], lengths: np.ndarray
    ) -> dict[str, float]:
        """Return figures that say what recorded episodes are like, means over rows.

        `columns` (R, ...) are those stored, without images, of one episode after another; `lengths`
        (E,) are their rows.
        """
        sizes = np.abs(columns["actions"]).mean(axis=0, dtype=np.float64)
        return {f"mean |action {i}|": float(size) for i, size in enumerate(sizes)}

    def replay(self, env: gym.Env, row: Mapping[str, np.ndarray]) -> np.ndarray:
        """Draw a stored row in `env`, which was reset, as a frame (height, width, 3) uint8.

        Raises `UserError` if the stored columns do not say enough, or no frames can be drawn.
        """
        raise UserError(f"stored episodes of {self.name} cannot be drawn")

    def collector(self, env: gym.Env, settings: CollectSettings) -> Collector:
        """Return the scripted agent that collects data in `env`, if `check_collects` lets it."""
        self.check_collects()
        return load(self.policies)(env.unwrapped, settings)

    def summarise(
        self, history: Sequence[Mapping[str, Any]], rewards: Sequence[float]
    ) -> dict[str, float]:
        """Reduce one finished episode (its step infos and rewards) to `metrics`.

        `episode_reward`, `mean_reward`, `episode_length` and `interaction_rate`, the share of steps
        that moved an object, are of the whole episode, all others those of its last step.
        """
        moved = [bool(info.get("was_agent_object_interaction")) for info in history]
        whole = {
            "episode_reward": sum(rewards),
            "mean_reward": sum(rewards) / len(rewards),
            "episode_length": len(rewards),
            "interaction_rate": sum(moved) / len(moved),
        }
        figures = {**history[-1], **whole}
        return {name: float(figures[name]) for name in self.metrics}


class GoalWorld(World):
    """World whose episodes have a goal, and whose states are made of entities.

    Its environments also draw `subgoal_frame(state)`, a frame with a state (state_dim,) as ghosts;
    the info of `reset` has `goal` and `state_goal`, the goal's observation and state, and
    `goal_rendered`, its picture under the option `render_goal`; that of `step` has `success`.
    """

    reward_fields: tuple[str, ...]  # dataset columns that `reward` reads
    reward_within_episode: bool = False  # whether `reward` wants goals of the episode
    identifies_entities: ClassVar[bool] = False  # whether `state_entities` says which a row is of

    entity_names: tuple[str, ...]  # the agent's first
    entity_dim: int
    max_identities: int  # distinct identities of entities, the agent's included

    @property
    def num_entities(self) -> int:
        """Number of entities, the agent included."""
        return len(self.entity_names)

    @property
    def entity_identities(self) -> tuple[int, ...]:
        """Identity of each entity, the agent's 0; equal ones are not told apart."""
        return tuple(range(self.num_entities))

    @property
    def goal_dim(self) -> int:
        """Length of `state_goal`: that of a state, unless goals have fewer entities."""
        return self.state_dim

    @abstractmethod
    def reward(self, rows: Mapping[str, Tensor], goals: Mapping[str, Tensor]) -> Tensor:
        """Return the reward (B,) float32 of being at `rows` when `goals` (B, Q) are wanted."""

    @abstractmethod
    def state_entities(self, state: Tensor) -> Tensor:
        """Turn states (..., state_dim) into entity rows (..., num_entities, entity_dim).

        And goals (..., goal_dim) into as many rows as they have.
        """

    @abstractmethod
    def entities_state(self, entities: Tensor) -> Tensor:
        """Turn entity rows (..., num_entities, entity_dim) back into states (..., state_dim)."""

    def entity_positions(self, state: Tensor) -> Tensor:
        """Return the objects' positions (..., objects, P) in states (..., state_dim), as scaled
        there; the agent is left out. Raises `UserError` in a world whose states do not tell them.
        """
        raise UserError(f"task={self.name} does not tell the positions of its objects")


def choice(row: np.ndarray, rows: gym.spaces.Box) -> int:
    """Return the largest number's place in a row (A,); `ValueError` if it is none of `rows`."""
    check_action(row, rows.shape)
    return int(row.argmax())
