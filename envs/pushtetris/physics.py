"""The plane in the simulator: walls, pieces that lie where they were pushed, and the agent.

Space and time: 512 x 512 units, 10 actions a second of 10 simulation steps each. Nothing glides:
velocities of pieces are damped to zero at every step, so they move only while pushed.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

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
    """N pieces and the agent between four walls; `place` puts them somewhere.

    The agent is kinematic: nothing stops it, walls neither, and it can squeeze pieces through
    them. Pieces do not rub against anything (friction and elasticity 0). It comes before the
    pieces, as in the reference: the order of the bodies decides what gives way in a squeeze.

    The simulator hides a part of its state, so a copy repeats what was done with the original.

    Attributes:
        order: the shapes from the lowest to the topmost, as the simulator draws them: indices (R +
            1,) of the rectangles of all pieces, and after those of the agent.
    """

    def __init__(self, pieces: Sequence[rules.Piece]) -> None:
        self._pieces = pieces
        self._past: list[tuple[np.ndarray, array[float]]] = []  # placed poses, actions after them
        self._space = pymunk.Space()
        self._space.damping = 0
        static = self._space.static_body
        self._space.add(*(pymunk.Segment(static, a, b, WALL_RADIUS) for a, b in WALLS))
        agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        disc = pymunk.Circle(agent, rules.AGENT_RADIUS)
        self._space.add(agent, disc)
        bodies, shapes = zip(*map(self._add_piece, pieces), strict=True) if pieces else ((), ())
        self._bodies = [agent, *bodies]
        self._drawn, ours = _Drawn(self._space), [*chain(*shapes), disc]
        self.order = np.array([ours.index(shape) for shape in self._drawn.shapes if shape in ours])

    def _add_piece(self, piece: rules.Piece) -> tuple[pymunk.Body, list[pymunk.Poly]]:
        body = pymunk.Body(MASS, piece.moment)
        shapes = [pymunk.Poly(body, corners.tolist()) for corners in piece.corners]
        body.center_of_gravity = tuple(piece.center_of_gravity)
        self._space.add(body, *shapes)
        return body, shapes

    def place(self, poses: np.ndarray) -> None:
        """Put agent and pieces at poses (N + 1, 3), the agent's first, for one simulation step.

        Pieces that overlapped where they were before are still being pushed apart in it.
        """
        self._past.append((np.array(poses, np.float64), array("d")))
        self._bodies[0].velocity = 0, 0
        for body, (x, y, angle) in zip(self._bodies, poses, strict=True):
            body.angle = float(angle)  # first, because it turns the body about its centre
            body.position = float(x), float(y)
        self._space.step(TIME_STEP)

    def move(self, action: Iterable[float]) -> None:
        """Drive the agent for one control step towards `action` (2,), in units of 100, ahead."""
        agent, ahead = self._bodies[0], Vec2d(*map(float, action))
        self._past[-1][1].extend(ahead)
        target = agent.position + rules.ACTION_UNITS * ahead
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

    @property
    def contacts(self) -> list[tuple[Vec2d, Vec2d]]:
        """Lines from point to point that mark where bodies touch, in the order of drawing."""
        self._drawn.lines = []
        self._space.debug_draw(self._drawn)
        return self._drawn.lines

    def __getstate__(self) -> dict[str, Any]:
        return {"pieces": self._pieces, "past": self._past}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["pieces"])
        for poses, actions in state["past"]:
            self.place(poses)
            for action in zip(actions[::2], actions[1::2], strict=True):
                self.move(action)


class _Drawn(pymunk.SpaceDebugDrawOptions):
    """Takes down what the simulator would draw: its shapes, once, and the lines of contacts."""

    def __init__(self, space: pymunk.Space) -> None:
        super().__init__()
        self.shapes: list[pymunk.Shape] = []
        self.lines: list[tuple[Vec2d, Vec2d]] = []
        space.debug_draw(self)
        self.flags = self.DRAW_COLLISION_POINTS

    def color_for_shape(self, shape: pymunk.Shape) -> Any:
        self.shapes.append(shape)
        return self.shape_outline_color

    def draw_segment(self, a: Vec2d, b: Vec2d, color: Any) -> None:
        self.lines.append((a, b))

    def draw_nothing(self, *_: Any) -> None:
        """Leave it out."""

    draw_circle = draw_fat_segment = draw_polygon = draw_nothing
