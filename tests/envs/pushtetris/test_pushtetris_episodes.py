"""Push-Tetris step by step as plain pymunk moves it and pygame draws it."""

from pathlib import Path

import numpy as np
import pytest

from envs.pushtetris import rules
from envs.pushtetris.contacts import colored, mark, samples
from envs.pushtetris.drawing import Painter, Shapes
from envs.pushtetris.palette import CONTACT, PALETTE
from envs.pushtetris.physics import Plane

# Episodes of one, three and seven pieces in pymunk 7.3.1, from a script of its own that adds the
# agent before the pieces and sets the start in the space of the goal; with the agent last, the
# states part at step 17 by 8.7 units and at step 5 by up to 1.5. Drawn by pymunk's
# `pygame_util.DrawOptions` as the pictures in `pushtetris_pygame.npz`, contacts included.
GOLDEN = Path(__file__).parents[2] / "golden" / "pushtetris_episodes.npz"


@pytest.mark.parametrize("pieces", [1, 3, 7])
def test_states_and_pictures_are_those_of_plain_pymunk_and_pygame(pieces: int):
    with np.load(GOLDEN) as golden:
        episode = {key.split("_")[1]: golden[key] for key in golden if key[0] == str(pieces)}
    plane = Plane([rules.PIECES[name] for name in episode["names"]])
    painter, shapes, marked = Painter(128), Shapes.of(episode["names"].tolist()), 0
    for place in ("goal", "start"):
        plane.place(episode[place])
    for step, (poses, frame) in enumerate(zip(episode["states"], episode["frames"], strict=True)):
        if step:
            plane.move(episode["actions"][step - 1])
        np.testing.assert_allclose(plane.poses, poses, rtol=0, atol=1e-6)
        picture = painter.scene(shapes, plane.poses, order=plane.order)
        marks = mark(picture, plane.contacts)
        np.testing.assert_array_equal(colored(picture, marks), frame)
        marked += bool(marks)
    assert marked  # there were contacts to see


def test_the_simulator_says_which_shape_is_on_top():
    """The agent (the last index) with one piece, not with three or more rectangles."""
    assert Plane([rules.PIECES["O"]]).order.tolist() == [0, 1]
    three = Plane([rules.PIECES[name] for name in "OIT"])
    assert sorted(three.order) == [0, 1, 2, 3, 4] and three.order[-1] != 4
    poses = np.array([[256.0, 256.0, 0.0], [256.0, 256.0, 0.3], [99, 99, 0], [400, 400, 0]])
    shapes, on_top = Shapes.of(["O", "I", "T"]), rules.PIECES["O"].color
    picture = Painter(128).scene(shapes, poses, order=np.array([4, 0, 1, 2, 3]))
    assert tuple(PALETTE[picture[64, 64]]) == on_top


def test_a_level_line_of_a_contact_has_hard_edges_and_a_slanted_one_soft_ones():
    level = dict(samples([((2.4, 3.0), (6.0, 3.4))], 1))
    assert level == {(x, 3): 1 for x in range(2, 7)}
    slanted = dict(samples([((0.0, 0.0), (4.0, 2.0))], 1))
    assert slanted == {
        **{(0, 0): 1, (2, 1): 1, (4, 2): 1},
        **{(1, 0): 0.5, (1, 1): 0.5, (3, 1): 0.5, (3, 2): 0.5},
    }
    backwards = dict(samples([((4.0, 2.0), (0.0, 0.0))], 1))
    steep = dict(samples([((0.0, 0.0), (2.0, 4.0))], 1))
    assert backwards == slanted == {(x, y): share for (y, x), share in steep.items()}
    assert dict(samples([((0.0, 0.0), (4.0, 2.0))], 2)) == {(0, 0): 1, (2, 1): 1}  # every second


def test_a_mark_hides_what_lies_under_it_and_stays_in_the_picture():
    picture = np.ones((128, 128), np.uint8)
    lines = [((8.0, 8.0), (8.0, 8.0)), ((508.0, 510.0), (530.0, 510.0))]
    marks = mark(picture, lines)
    assert [*marks] == [(2, 2)] and picture[2, 2] == CONTACT
    frame = colored(picture, marks)
    assert frame[2, 2].tolist() == [231, 76, 60] and (frame[3, 3] == PALETTE[1]).all()
