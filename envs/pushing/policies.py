"""Scripted policies of the pushing tables: uniform actions, and a pusher that knows the goal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse.csgraph import dijkstra

from common.settings.schema import CollectSettings
from envs.pushing import rules
from envs.pushing.physics import ACTION_METRES, FALLEN

if TYPE_CHECKING:
    from envs.pushing.env import PushingEnv

CORNERS = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)])
SAMPLES = 21  # points of a straight way that are looked at
INSIDE = 100.0  # by which a way through a cube is taken to be longer


class RandomPolicy:
    """Uniformly random actions; nothing is added to them, whatever the settings say of noise."""

    def __init__(self, env: PushingEnv, settings: CollectSettings) -> None:
        self._env, self._settings = env, settings

    def reset(self, obs: np.ndarray, info: dict[str, Any], rng: np.random.Generator) -> None:
        """Start an episode; every later draw comes from `rng`."""
        self._rng = rng

    def act(self, info: dict[str, Any]) -> np.ndarray:
        """Return the action (3,) float32."""
        return self._rng.uniform(-1, 1, 3).astype(np.float32)

    def observe(self, obs: np.ndarray, info: dict[str, Any]) -> None:
        """Nothing to follow: each action depends on the present alone."""


class ScriptedPusher(RandomPolicy):
    """Goes round an object and pushes it along the axis of its larger error, one after another.

    Each action is random with probability `p_random_action`, and has Gaussian noise otherwise, of a
    scale that is drawn for an episode from 0 to `action_noise`; none if `dataset_type` is "play".
    """

    clearance = 0.012  # metres between tip and object before a push, and on the way round
    aligned = 0.006  # metres by which a push may miss the middle of a side
    close = 0.3  # share of the error that counts as reached, at which an object is left alone

    def reset(self, obs: np.ndarray, info: dict[str, Any], rng: np.random.Generator) -> None:
        super().reset(obs, info, rng)
        noise = 0.0 if self._settings.dataset_type == "play" else self._settings.action_noise
        self._noise = rng.uniform(0, noise)

    def act(self, info: dict[str, Any]) -> np.ndarray:
        """Return the action (3,) float32."""
        if self._rng.uniform() < self._settings.p_random_action:
            return super().act(info)
        rows = info["qpos"][3:].reshape(-1, 4)
        action = np.zeros(3)
        target = self._choose(rows)
        if target is not None:
            action[:2] = self._move(info["qpos"][:2], rows[:, :2], target)
        action = action / ACTION_METRES + self._rng.normal(0, self._noise, 3)
        return np.clip(action, -1, 1).astype(np.float32)

    def _goal(self, target: int) -> np.ndarray:
        goals = self._env.goal_rows
        return goals[target % len(goals), :2]

    def _choose(self, rows: np.ndarray) -> int | None:
        """Return the first object, farthest goals first, that lies on the table but not well."""
        goals = np.array([self._goal(i) for i in range(len(rows))])
        for target in np.argsort(-goals[:, 0], kind="stable"):
            error = np.linalg.norm(rows[target, :2] - goals[target])
            if rows[target, 2] > FALLEN and error > self.close * self._env.law.within:
                return int(target)
        return None

    def _move(self, pusher: np.ndarray, cubes: np.ndarray, target: int) -> np.ndarray:
        """Return the displacement (2,) that comes next in pushing a cube of (N, 2) to its goal."""
        cube, error = cubes[target], self._goal(target) - cubes[target]
        along = int(abs(error).argmax())
        boxes = np.stack((cubes, np.full_like(cubes, rules.CUBE / 2)), axis=1)
        if self._env.law.scene.corridor:
            walls = np.array([(center, np.array(size[:2]) / 2) for center, size in rules.WALLS])
            boxes = np.concatenate((boxes, walls))
            if cube[0] < rules.CORRIDOR_X - rules.CUBE / 2 and abs(error[1]) > self.aligned / 2:
                along = 1  # it has to be in front of the corridor first
        way = np.zeros(2)
        way[along] = np.sign(error[along])
        tip = self._env.table.tip[:2] / 2
        reach = rules.CUBE / 2 + tip[along]  # between the centres when they touch
        gap, aside = (cube - pusher) @ way, abs(pusher - cube)[1 - along]
        if aside < self.aligned and gap > 0.9 * reach:
            return cube + way * (abs(error[along]) - reach) - pusher
        boxes[:, 1] += tip + self.clearance / 2
        behind = cube - way * (reach + self.clearance)
        return next_point(pusher, behind, boxes, self.clearance / 2) - pusher


def next_point(
    start: np.ndarray, end: np.ndarray, boxes: np.ndarray, clearance: float
) -> np.ndarray:
    """Return where the shortest way between two points (2,) round all `boxes` goes first.

    Boxes (K, 2, 2) are centres and half sizes; ways lead over their corners, a little outside.
    """
    centers, halves = boxes.swapaxes(0, 1)
    corners = centers[:, None] + (halves[:, None] + clearance) * CORNERS
    nodes = np.concatenate(([start, end], corners.reshape(-1, 2)))
    step = nodes - nodes[:, None]
    samples = nodes[:, None, None] + np.linspace(0, 1, SAMPLES)[:, None] * step[:, :, None]
    inside = (abs(samples[..., None, :] - centers) < halves).all(-1).any(-1).mean(-1)
    lengths = np.linalg.norm(step, axis=-1) * (1 + INSIDE * inside)
    _, before = dijkstra(lengths, indices=0, return_predecessors=True)
    node = 1
    while before[node] > 0:
        node = before[node]
    return nodes[node]
