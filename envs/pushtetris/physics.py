"""The plane in the simulator: walls, pieces that lie where they were pushed, and the agent.

Space and time: 512 x 512 units, 10 actions a second of 10 simulation steps each. Nothing glides:
velocities of pieces are damped to zero at every step, so they move only while pushed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pymunk
from pymunk import Vec2d

from envs.pushtetris import rules

TIME_STEP = 0.01  # seconds
STEPS_PER_ACTION = 10
GAIN_POSITION, GAIN_VELOCITY = 100.0, 20.0  # of the controller that moves the agent
MASS = 1.0  # of a piece
WALL_RADIUS = 2
WALL_LOW, WALL_HIGH = 5, 506  # of both coordinates
WALLS = (
    ((WALL_LOW, WALL_HIGH), (WALL_LOW, WALL_LOW)),
    ((WALL_LOW, WALL_LOW), (WALL_HIGH, WALL_LOW)),
    ((WALL_HIGH, WALL_LOW), (WALL_HIGH, WALL_HIGH)),
    ((WALL_LOW, WALL_HIGH), (WALL_HIGH, WALL_HIGH)),
)


class Plane:
    """N pieces and the agent between four walls, at rest at poses (N + 1, 3), the agent's first.

    The agent is kinematic: nothing stops it, walls neither, and it can squeeze pieces through
    them. Pieces do not rub against anything (friction and elasticity 0).

    Differs from the reference, which puts the start into the plane of the goal: there, pieces that
    overlap at the goal are still being pushed apart at the start (by less than 0.001 units).
    """

    def __init__(self, pieces: Sequence[rules.Piece], poses: np.ndarray) -> None:
        self._space = pymunk.Space()
        self._space.damping = 0
        static = self._space.static_body
        self._space.add(*(pymunk.Segment(static, a, b, WALL_RADIUS) for a, b in WALLS))
        agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self._bodies = [agent, *(self._add_piece(piece) for piece in pieces)]
        self._space.add(agent, pymunk.Circle(agent, rules.AGENT_RADIUS))
        for body, (x, y, angle) in zip(self._bodies, poses, strict=True):
            body.angle = float(angle)  # first, because it turns the body about its centre
            body.position = float(x), float(y)
        self._space.step(TIME_STEP)

    def _add_piece(self, piece: rules.Piece) -> pymunk.Body:
        body = pymunk.Body(MASS, piece.moment)
        shapes = [pymunk.Poly(body, corners.tolist()) for corners in piece.corners]
        body.center_of_gravity = tuple(piece.center_of_gravity)
        self._space.add(body, *shapes)
        return body

    def move(self, action: np.ndarray) -> None:
        """Drive the agent for one control step towards `action` (2,), in units of 100, ahead."""
        agent = self._bodies[0]
        target = agent.position + rules.ACTION_UNITS * Vec2d(*map(float, action))
        target = Vec2d(*(min(max(value, 0.0), float(rules.PLANE)) for value in target))
        for _ in range(STEPS_PER_ACTION):
            position, velocity = agent.position, agent.velocity
            force = GAIN_POSITION * (target - position) - GAIN_VELOCITY * velocity
            agent.velocity = velocity + force * TIME_STEP
            self._space.step(TIME_STEP)

    @property
    def poses(self) -> np.ndarray:
        """x, y and angle (not wrapped) of agent and pieces: (N + 1, 3). The agent never turns."""
        return np.array([(*body.position, body.angle) for body in self._bodies])

    @property
    def agent_velocity(self) -> np.ndarray:
        """Units per second (2,)."""
        return np.array(self._bodies[0].velocity)
