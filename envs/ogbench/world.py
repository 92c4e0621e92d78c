"""OGBench's environments on the robot's table as a world: vectors, rewards, entities, data."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from common.foundation.errors import UserError
from common.settings.schema import setting
from envs.base import ActionSpec, GoalWorld
from envs.ogbench.tasks import TABLES, TASKS
from envs.scene.world import DRAWER_TO_ENTITY, FIXED, WINDOW_TO_ENTITY
from envs.tabletop import table
from envs.tabletop.table import CUBE_JOINTS, ROBOT_JOINTS

if TYPE_CHECKING:
    from torch import Tensor

# Columns of OGBench's state vector, in this order: the arm, each cube, each button (off, on, depth,
# velocity), drawer and window (position, velocity).
AGENT_DIM, CUBE_DIM, BUTTON_DIM, SLIDE_DIM = 19, 9, 4, 2
# Which of its columns become the first columns of an entity: xyz, cos yaw, sin yaw, then the rest.
ARM_ORDER = [*range(12, 19), *range(12)]  # gripper opening, contact, joint positions, velocities
CUBE_ORDER = [0, 1, 2, 7, 8, 3, 4, 5, 6]  # quaternion wxyz
BUTTON_COLUMNS = slice(5, 9)  # of a button's entity: off, on, depth, velocity
ON, VELOCITY = 6, 8
ROBOT_SPEEDS, CUBE_SPEEDS = 14, 6  # columns of qvel, as ROBOT_JOINTS and CUBE_JOINTS of qpos
IMAGE = (64, 64, 3)


@dataclass(frozen=True)
class OGBenchSettings:
    """Section `env_kwargs.ogbench`; everything else is as OGBench registers it."""

    terminate_at_goal: bool = setting()


class OGBenchWorld(GoalWorld):
    """One of OGBench's environments: cubes, a scene with buttons, drawer and window, or a puzzle.

    `task` is the name of one of its datasets. Letters: N cubes, K buttons, W slides (drawer and
    window, or none). Raises `UserError` for two cameras.
    """

    section = "ogbench"
    Settings = OGBenchSettings
    data_folders = ("~/.ogbench/data",)  # OGBench's own
    state_column = "observations"
    eval_tasks = (1, 2, 3, 4, 5)
    packages = ("ogbench", "mujoco", "dm_control", "gymnasium", "numpy")
    metrics = ("success", "success_frac", "episode_reward", "episode_length")
    actions = ActionSpec(5)

    def __init__(
        self, task: str, settings: OGBenchSettings, *, max_episode_steps: int, multiview: bool
    ) -> None:
        if multiview:
            raise UserError("multiview=true is not possible: OGBench's environments have one view")
        super().__init__(settings, max_episode_steps=max_episode_steps)
        self.name = task
        about = TASKS[task]
        self.environment, self.table, self.visual = about.environment, about.table, about.visual
        cubes, buttons, slides = self.table.cubes, self.table.buttons, self.table.slides
        objects = CUBE_DIM * cubes + BUTTON_DIM * buttons + SLIDE_DIM * slides
        self.state_dim = AGENT_DIM + objects
        self.entity_dim = AGENT_DIM
        self.entity_names = table.entity_names(cubes, buttons, slides)
        # An agent that knows the identities of eight cubes can act on any number of them.
        family = [other.cubes for other in TABLES.values() if other.buttons == buttons]
        self.max_identities = self.num_entities - cubes + max(family)
        self.reward_fields = ("qpos",) * bool(cubes) + ("button_states",) * bool(buttons)

    @classmethod
    def defaults(cls, task: str, settings: OGBenchSettings) -> dict[str, Any]:
        return {"train_dataset_name": task, "max_episode_steps": TASKS[task].table.steps}

    @classmethod
    def of_task(cls, task: str, settings: OGBenchSettings, **arguments: Any) -> OGBenchWorld:
        return cls(task, settings, **arguments)

    def simulator(self, pixels: bool) -> gym.Env:
        from envs.ogbench.env import make_env

        return make_env(self.environment, self.table.cubes, **vars(self.settings))

    def observation_problem(self, kind: str, pixels: bool) -> str | None:
        if self.visual and not pixels:
            return f"task={self.name} has images only; use obs=rgb, or the task without visual-"
        if pixels and not self.visual:
            return f"task={self.name} has no images; use obs=state, or a visual-* task"
        if kind == "entities" and not pixels and not self.table.cubes:
            return f"task={self.name} is not made of entities; use obs=state"
        return None

    # Data.

    def collect_overrides(self) -> list[str]:
        return ["ogbench=true", *super().collect_overrides()]

    def check_collects(self) -> None:
        raise UserError(
            f"task={self.name} collects nothing; get its data with `{self.download_command()}`"
        )

    def download_command(self) -> str:
        return f"python -c \"import ogbench; ogbench.download_datasets(['{self.name}'])\""

    def compatible(self, header: Mapping[str, Any]) -> str | None:
        """Return None for data of this environment, play or noisy, else what differs."""
        other = TASKS.get(header["environment"])
        if other is None or other.environment != self.environment:
            return f"the data is of environment {header['environment']}, not of {self.name}"
        return None

    def dataset_columns(self, pixels: bool) -> dict[str, tuple[tuple[int, ...], str]]:
        others = self.table.buttons + self.table.slides
        columns = {
            "observations": (IMAGE, "uint8") if self.visual else ((self.state_dim,), "float32"),
            "actions": ((self.actions.size,), "float32"),
            "terminals": ((), "bool"),
            "qpos": ((ROBOT_JOINTS + CUBE_JOINTS * self.table.cubes + others,), "float32"),
            "qvel": ((ROBOT_SPEEDS + CUBE_SPEEDS * self.table.cubes + others,), "float32"),
        }
        if self.table.buttons:
            columns["button_states"] = ((self.table.buttons,), "int64")
        return columns

    def qpos_layout(self) -> dict[str, Any]:
        names = self.entity_names[1:]
        return table.qpos_layout((name, CUBE_JOINTS if "cube" in name else 1) for name in names)

    def reward(self, rows: Mapping[str, Tensor], goals: Mapping[str, Tensor]) -> Tensor:
        """Return 0 where OGBench would call `rows` a success with the goal `goals`, else -1: (B,).

        Cubes, drawer and window within 0.04 m of where they are in the goal, buttons equal. OGBench
        itself learns with `reward=unsupervised`.
        """
        placed = []
        if self.table.cubes:
            xyz = (table.cube_positions(each["qpos"], self.table.cubes) for each in (rows, goals))
            placed.append((table.distances(*xyz) <= table.SUCCESS_DISTANCE).all(1))
        if self.table.buttons:
            placed.append((rows["button_states"] == goals["button_states"]).all(1))
        if self.table.slides:
            apart = (rows["qpos"] - goals["qpos"])[:, -self.table.slides :].abs()
            placed.append((apart <= table.SUCCESS_DISTANCE).all(1))
        return functools.reduce(operator.and_, placed) * 1.0 - 1.0

    def replay(self, env: gym.Env, row: Mapping[str, np.ndarray]) -> np.ndarray:
        """Draw a stored `qpos`, with `button_states` where there are buttons."""
        bare = env.unwrapped
        buttons = [row["button_states"]] if self.table.buttons else []
        bare.set_state(row["qpos"], np.zeros(bare.model.nv), *buttons)
        return bare.frame()

    # Entities, of cubes and scene.

    def state_entities(self, state: Tensor) -> Tensor:
        """Turn states (..., S) into rows (..., 1 + N + K + W, 19); what a kind has not is zero.

        Positions come first and are of one scale: those of effector and cubes, and, fixed but for
        the slides, tops of buttons and handles of drawer and window.
        """
        rows = state.new_zeros((*state.shape[:-1], self.num_entities, self.entity_dim))
        arm, cubes, buttons, slides = self._split(state)
        first, last = 1 + self.table.cubes, 1 + self.table.cubes + self.table.buttons
        rows[..., 0, :] = arm[..., ARM_ORDER]
        rows[..., 1:first, :CUBE_DIM] = cubes[..., CUBE_ORDER]
        if self.table.buttons:
            rows[..., first:, :3] = state.new_tensor(FIXED)
            rows[..., first:last, BUTTON_COLUMNS] = buttons
            rows[..., -2, 1] -= slides[..., 0, 0] * DRAWER_TO_ENTITY
            rows[..., -1, 0] += slides[..., 1, 0] * WINDOW_TO_ENTITY
            rows[..., -2:, VELOCITY] = slides[..., 1]
        return rows

    def entities_state(self, entities: Tensor) -> Tensor:
        """Turn rows (..., 1 + N + K + W, 19) back into states (..., S).

        What cannot move is dropped: only the slides count of the positions of drawer and window.
        """
        state = entities.new_empty((*entities.shape[:-2], self.state_dim))
        arm, cubes, buttons, slides = self._split(state)
        first, last = 1 + self.table.cubes, 1 + self.table.cubes + self.table.buttons
        arm[..., ARM_ORDER] = entities[..., 0, :]
        cubes[..., CUBE_ORDER] = entities[..., 1:first, :CUBE_DIM]
        if self.table.buttons:
            buttons[:] = entities[..., first:last, BUTTON_COLUMNS]
            drawer, window = entities[..., -2, 1], entities[..., -1, 0]
            slides[..., 0, 0] = (float(FIXED[-2, 1]) - drawer) / DRAWER_TO_ENTITY
            slides[..., 1, 0] = (window - float(FIXED[-1, 0])) / WINDOW_TO_ENTITY
            slides[..., 1] = entities[..., -2:, VELOCITY]
        return state

    def _split(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return arm (..., 19), cubes (..., N, 9), buttons (..., K, 4) and slides (..., W, 2)."""
        sizes = ((self.table.cubes, CUBE_DIM), (self.table.buttons, BUTTON_DIM))
        sizes += ((self.table.slides, SLIDE_DIM),)
        arm, *parts = state.split([AGENT_DIM, *(count * size for count, size in sizes)], dim=-1)
        shaped = (part.unflatten(-1, size) for part, size in zip(parts, sizes, strict=True))
        return arm, *shaped

    def entity_positions(self, state: Tensor) -> Tensor:
        """Return where the objects are, (..., N + K + W, 4): scaled xyz and a button's state.

        The state is a coordinate because it is all that changes of a button that was pressed.
        """
        if not self.table.cubes:
            return super().entity_positions(state)
        rows = self.state_entities(state)[..., 1:, :]
        positions = rows[..., [0, 1, 2, ON]]
        positions[..., : self.table.cubes, 3] = 0.0  # of cubes the column holds something else
        return positions
