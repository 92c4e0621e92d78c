"""The scene's world, without its simulator."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from common.settings.schema import setting
from envs.rendering import QUALITIES
from envs.scene import rules
from envs.tabletop.statistics import of_cubes, of_robot
from envs.tabletop.table import AGENT_DIM, CENTER, CUBE_DIM, XYZ_SCALE, entity_names
from envs.tabletop.world import TabletopWorld

if TYPE_CHECKING:
    from torch import Tensor

# Columns of an entity: xyz, cos yaw, sin yaw, gripper opening or depth of a button, its state.
ENTITY_DIM = 7
DEPTH, STATE = 5, 6
# Entity positions of the buttons and of the closed drawer and window, (4, 3), scaled.
FIXED = XYZ_SCALE * (
    np.array([*rules.BUTTON_TOPS, rules.DRAWER_HANDLE, rules.WINDOW_HANDLE]) - CENTER
)
DRAWER_TO_ENTITY = XYZ_SCALE / rules.DRAWER_SCALE
WINDOW_TO_ENTITY = XYZ_SCALE / rules.WINDOW_SCALE


@dataclass(frozen=True)
class SceneSettings:
    """Section `env_kwargs.scene`."""

    mode: str = setting(choices=rules.MODES)
    reward_mode: str = setting(choices=rules.REWARD_MODES)
    num_cubes: int = setting(low=1, high=rules.MAX_CUBES)
    visualize_info: bool = setting()
    terminate_at_goal: bool = setting()
    width: int = setting(low=1)
    height: int = setting(low=1)
    render_quality: str = setting(choices=tuple(QUALITIES), identity=False)  # the data's, if images
    published_drawer_rule: bool = setting(identity=False)
    published_health_check: bool = setting(identity=False)


class Scene(TabletopWorld):
    """One or two cubes, two buttons, a drawer and a window; five evaluation tasks.

    A state holds arm (6), cubes (5 each), state and depth of each button, drawer, window; scales
    are OGBench's. Entities are the arm, the cubes, the buttons, the drawer and the window.
    """

    name = "visual-scene-v0"
    section = "scene"
    Settings = SceneSettings
    dataset = "visual-scene-noisy-v0"
    environment = "envs.scene.env:VisualSceneEnv"
    policies = "envs.scene.policies:SceneCollector"
    eval_tasks = tuple(rules.TASKS)
    reward_fields = ("qpos", "button_states")

    def __init__(
        self, settings: SceneSettings, *, max_episode_steps: int, multiview: bool = False
    ) -> None:
        super().__init__(settings, max_episode_steps=max_episode_steps, multiview=multiview)
        self.state_dim = AGENT_DIM + CUBE_DIM * self.num_cubes + 2 * rules.BUTTONS + 2
        self.entity_dim = ENTITY_DIM
        self.entity_names = entity_names(self.num_cubes, rules.BUTTONS, slides=2)
        self.max_identities = self.num_entities - self.num_cubes + rules.MAX_CUBES
        self._layout = rules.qpos_layout(self.num_cubes)

    # Data.

    def dataset_columns(self, pixels: bool) -> dict[str, tuple[tuple[int, ...], str]]:
        return super().dataset_columns(pixels) | {"button_states": ((rules.BUTTONS,), "int64")}

    def qpos_layout(self) -> dict[str, Any]:
        """Return the columns of qpos by name; they are the addresses of the simulator's joints."""
        return self._layout

    def recognise(self, sample: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """See `World.recognise`; which columns qpos has is told from where its quaternions are.

        The published collector has others than OGBench.
        """
        layout = rules.find_layout(sample["qpos"], self.num_cubes) if "qpos" in sample else {}
        return super().recognise(sample) | {"qpos_layout": layout}

    def adopt(self, header: Mapping[str, Any]) -> Scene:
        """Return this world with the columns of qpos that the data has."""
        world = copy.copy(self)
        world._layout = header["qpos_layout"]
        return world

    def objects(self, columns: Mapping[str, Any]) -> rules.Objects:
        """Return the objects of `qpos` (..., Q) and `button_states` (..., 2), arrays or tensors."""
        qpos, layout = columns["qpos"], self._layout
        names = [f"cube_{i}_xyz" for i in range(self.num_cubes)]
        xyz = [range(*layout[name]) for name in names]
        cubes = qpos[..., np.array(xyz)]
        drawer, window = (qpos[..., layout[name][0]] for name in ("drawer", "window"))
        return rules.Objects(cubes, columns["button_states"], drawer, window)

    def reward(self, rows: Mapping[str, Tensor], goals: Mapping[str, Tensor]) -> Tensor:
        """Return the reward (B,) float32 for `qpos` (B, Q) and `button_states` (B, 2).

        The same formulas as the environment's own reward, see `rules.reward`. Differs from the
        reference, which reads OGBench's columns in data that has others.
        """
        placed = rules.in_place(self.objects(rows), self.objects(goals))
        return rules.reward(placed, self.settings.reward_mode)

    def statistics(
        self, columns: Mapping[str, np.ndarray], lengths: np.ndarray
    ) -> dict[str, float]:
        """Return figures on actions, robot, moving cubes, drawer and window."""
        figures = super().statistics(columns, lengths) | of_robot(columns)
        if {"qpos", "button_states"} - columns.keys():
            return figures
        now = self.objects(columns)
        cubes = now.cubes.astype(np.float64)
        inside = rules.in_drawer(cubes, now.drawer).any(-1)
        return figures | {
            **of_cubes(cubes, lengths),
            "a cube in the drawer": float(inside.mean()),
            "drawer open": float((now.drawer < rules.DRAWER_OPEN / 2).mean()),
            "window open": float((now.window > rules.WINDOW_OPEN / 2).mean()),
            "button 0 on": float(now.buttons[..., 0].mean()),
            "button 1 on": float(now.buttons[..., 1].mean()),
        }

    def replay(self, env: gym.Env, row: Mapping[str, np.ndarray]) -> np.ndarray:
        """Draw a stored `qpos` and `button_states`, whatever the order of the columns."""
        ours = rules.qpos_layout(self.num_cubes)
        qpos = np.zeros_like(row["qpos"])
        for name, columns in self._layout.items():
            qpos[slice(*ours[name])] = row["qpos"][slice(*columns)]
        scene = env.unwrapped
        scene.set_state(qpos, np.zeros(scene.model.nv), row["button_states"])
        return scene.frame()

    # Entities.

    def state_entities(self, state: Tensor) -> Tensor:
        """Turn states (..., 12 + 5 N) into rows (..., N + 5, 7); what a kind has not is zero.

        Positions are those of effector and cubes, tops of buttons, handles of drawer and window.
        """
        rows, (*_, others) = super().state_entities(state), self._split(state)
        rows[..., 1 + self.num_cubes :, :3] = state.new_tensor(FIXED)
        rows[..., -4:-2, STATE], rows[..., -4:-2, DEPTH] = others[..., 0:4:2], others[..., 1:4:2]
        rows[..., -2, 1] -= others[..., -2] * DRAWER_TO_ENTITY
        rows[..., -1, 0] += others[..., -1] * WINDOW_TO_ENTITY
        return rows

    def entities_state(self, entities: Tensor) -> Tensor:
        """Turn rows (..., N + 5, 7) back into states (..., 12 + 5 N).

        What cannot move is dropped: only the slides count of the positions of drawer and window.
        """
        state = super().entities_state(entities)
        *_, others = self._split(state)
        others[..., 0:4:2], others[..., 1:4:2] = entities[..., -4:-2, [STATE, DEPTH]].unbind(-1)
        others[..., -2] = (float(FIXED[-2, 1]) - entities[..., -2, 1]) / DRAWER_TO_ENTITY
        others[..., -1] = (entities[..., -1, 0] - float(FIXED[-1, 0])) / WINDOW_TO_ENTITY
        return state

    def entity_positions(self, state: Tensor) -> Tensor:
        """Return where all but the arm are, (..., N + 4, 4): scaled xyz and a button's state.

        The state is a coordinate because it is all that changes of a button that was pressed.
        """
        return self.state_entities(state)[..., 1:, [0, 1, 2, STATE]]
