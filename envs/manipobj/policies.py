"""Scripted policies that collect cube data: pick-and-place and push, with noise.

Both steer by OGBench's info dictionary and act in the environment's units, (5,) in [-1, 1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
from ogbench.manipspace.oracles.markov.markov_oracle import MarkovOracle

from common.settings.schema import CollectSettings
from envs.manipobj import rules
from envs.tabletop.policies import ScriptedCollector

if TYPE_CHECKING:
    from envs.manipobj.env import ManipObjEnv

GAIN_POSITION = 5.0
GAIN_YAW = 3.0


class PickPlacePolicy(CubeMarkovOracle):
    """OGBench's pick-and-place policy; its final pose comes from an explicit generator."""

    max_steps = 200

    def reset(self, rng: np.random.Generator) -> None:
        """Start on a new target."""
        self._done = False
        self._step, self._max_step = 0, self.max_steps
        self._final_pos = rng.uniform(*self._env.unwrapped._arm_sampling_bounds)
        self._final_yaw = rng.uniform(-np.pi, np.pi)


class PushPolicy(MarkovOracle):
    """Goes down beside a cube and pushes against it for a few steps. The target is ignored.

    The faces are those of the published data: right and left lie across the cube's x axis, but
    front and back are their mirror images about the world's x axis, not the perpendicular faces.
    """

    max_steps = 100
    push_steps = 10
    side_distance = 0.07  # of the effector from the cube's centre before the push, metres
    hover = np.array([0.0, 0.0, 0.18])
    faces = ((1, 1), (-1, -1), (-1, 1), (1, -1))  # signs (x, y): right, left, front, back

    def reset(self, rng: np.random.Generator) -> None:
        """Start on a new target: draw the face to push."""
        self._done = False
        self._step = self._pushed = 0
        self._beside = False
        self._face = self.faces[rng.integers(len(self.faces))]

    def select_action(self, ob: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """Return the action (5,): above the side, down beside the cube, then against it."""
        effector, effector_yaw = info["proprio/effector_pos"], info["proprio/effector_yaw"][0]
        cube = info["privileged/target_block"]
        position = info[f"privileged/block_{cube}_pos"]
        yaw = self.shortest_yaw(effector_yaw, info[f"privileged/block_{cube}_yaw"][0])
        sign_x, sign_y = self._face
        offset = self.side_distance * np.array([sign_x * np.cos(yaw), sign_y * np.sin(yaw), 0.0])

        side = position + offset
        above = np.linalg.norm((side - effector)[:2]) <= 0.04
        self._beside |= bool(above and np.linalg.norm(side - effector) <= 0.02)
        if self._beside:
            goal, gripper = position, 1.0
            self._pushed += 1
        elif above:
            goal, gripper = side, 1.0
        else:
            goal, gripper = side + self.hover, -1.0
        self._step += 1
        self._done = self._pushed >= self.push_steps or self._step >= self.max_steps
        move = self.shape_diff(goal - effector) * GAIN_POSITION
        return np.clip([*move, (yaw - effector_yaw) * GAIN_YAW, gripper], -1, 1)


class ManipObjCollector(ScriptedCollector):
    """Picks and places, or pushes, what the environment's target asks for."""

    def __init__(self, env: ManipObjEnv, settings: CollectSettings) -> None:
        policies = {
            rules.PICK_PLACE: PickPlacePolicy(env=env, min_norm=settings.min_action_norm),
            rules.PUSH: PushPolicy(env=env, min_norm=settings.min_action_norm),
        }
        super().__init__(env, settings, policies)

    def draw_p_stack(self) -> float:
        """Draw an episode's probability of building on other cubes."""
        return self._env.law.p_stack(self._rng)

    def reset_policy(self, info: dict[str, Any]) -> None:
        """Start the policy on a new target."""
        self._policy.reset(self._rng)
