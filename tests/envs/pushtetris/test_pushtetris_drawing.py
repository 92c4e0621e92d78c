"""Pictures of Push-Tetris: pixel by pixel those of pygame."""

from pathlib import Path

import numpy as np
import pytest

from envs.pushtetris import rules
from envs.pushtetris.drawing import Painter, Shapes
from envs.pushtetris.palette import AGENT, BACKGROUND, INDICES, PALETTE, TARGET, WALL

# Twelve scenes of all seven pieces, drawn by pymunk 7.3.1's `pygame_util.DrawOptions` with pygame
# 2.6.1 on 512 x 512 pixels (polygons with radius 2, circles without the line of their angle), of
# which every 4th pixel is kept: `names`, `poses` and `pictures` as palette indices. Sixteen more
# are of pieces that cross the border, with the `orders` in which the simulator has the shapes.
GOLDEN = Path(__file__).parents[2] / "golden" / "pushtetris_pygame.npz"
BORDER = GOLDEN.with_name("pushtetris_border.npz")
FAR = np.array([64.0, 64.0, 0.0])  # a place for the agent


def painted(name: str, pose: tuple[float, float, float], size: int = 128) -> np.ndarray:
    """The pixels (size, size) of one piece at a pose."""
    picture = Painter(size).scene(Shapes.of([name]), np.array([FAR, pose]))
    return picture == INDICES[name]


def test_pictures_are_those_of_pygame():
    with np.load(GOLDEN) as golden:
        scenes = zip(golden["names"], golden["poses"], golden["pictures"], strict=True)
        for names, poses, expected in scenes:
            picture = Painter(128).scene(Shapes.of(list(names)), poses)
            np.testing.assert_array_equal(picture, expected)


def test_pieces_that_cross_the_border_are_those_of_pygame():
    """Lines begin where they come in, and crossings are rounded towards zero."""
    with np.load(BORDER) as golden:
        scenes = zip(
            *(golden[key] for key in ("names", "poses", "orders", "pictures")), strict=True
        )
        for names, poses, order, expected in scenes:
            picture = Painter(128).scene(Shapes.of(list(names)), poses, order=order)
            np.testing.assert_array_equal(picture, expected)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_smaller_pictures_keep_pixels_of_the_largest(size):
    poses = np.array([[200.0, 90.0, 0.0], [130.4, 260.2, 0.7], [300.1, 310.7, 2.0]])
    shapes = Shapes.of(["T", "I"])
    whole = Painter(512).scene(shapes, poses)
    every = 512 // size
    np.testing.assert_array_equal(Painter(size).scene(shapes, poses), whole[::every, ::every])


@pytest.mark.parametrize("name", rules.PIECES)
def test_pieces_have_their_area_and_a_rim(name):
    """3600 square units are 225 pixels; the fat edges add about a sixth to it."""
    rng = np.random.default_rng(0)
    poses = [(*rng.uniform(150, 350, 2), rng.uniform(0, 6.3)) for _ in range(30)]
    assert 258 < np.mean([painted(name, pose).sum() for pose in poses]) < 276
    sides = rules.PIECES[name].corners[:, 2] - rules.PIECES[name].corners[:, 0]
    assert sides.prod(axis=1).sum() == 3600


def test_a_piece_lies_where_its_pose_says():
    """The T at angle 0 is 90 wide from its origin to 30 below, then 30 wide to 60 below."""
    rows, columns = np.nonzero(painted("T", (256, 256, 0.0)))
    assert (rows.min(), rows.max()) == (256 // 4, (256 + 60) // 4)
    assert (columns.min(), columns.max()) == ((256 - 44) // 4, (256 + 44) // 4)
    assert (rows >= (256 + 36) // 4).sum() < 100  # the stem
    turned = np.argwhere(painted("T", (256, 256, np.pi / 2)))  # x turns to y: the stem points left
    assert turned[:, 1].min() == (256 - 60) // 4 and turned[:, 1].max() == 256 // 4


def test_the_agent_is_on_top_of_pieces_and_walls_on_top_of_it():
    poses = np.array([[256.0, 256.0, 0.0], [256.0, 256.0, 0.3]])
    assert Painter(128).scene(Shapes.of(["O"]), poses)[64, 64] == AGENT
    poses[0] = 0, 256, 0
    picture = Painter(128).scene(Shapes.of(["O"]), poses)
    assert picture[64, 1] == WALL and picture[64, 0] == AGENT and picture[64, 3] == AGENT


def test_pieces_may_leave_the_picture():
    for x, y in ((-20, 200), (530, 10), (256, 540), (2000, -2000)):
        painted("I", (x, y, 0.4))
    assert painted("O", (512, 256, 0.0))[:, 96:].any()
    assert not painted("O", (2000, -2000, 0.0)).any()


def test_there_are_ten_exact_colours():
    poses = np.concatenate([[FAR], rules.scattered(np.random.default_rng(0), 7)[1:]])
    frame = PALETTE[Painter(128).scene(Shapes.of(list(rules.PIECES)), poses)]
    colors = {tuple(color) for color in frame.reshape(-1, 3).tolist()}
    pieces = {piece.color for piece in rules.PIECES.values()}
    assert colors == pieces | {(255, 255, 255), (0, 0, 0), (211, 211, 211)}


def test_targets_lie_below_everything():
    shapes, poses = Shapes.of(["O"]), np.array([FAR, [256.0, 256.0, 0.0]])
    apart = Painter(128).scene(shapes, poses, (shapes, np.array([[400.0, 400.0, 0.0]])))
    assert apart[100, 100] == TARGET and PALETTE[TARGET].tolist() == [119, 136, 153]
    assert abs((apart == TARGET).sum() - 225) < 40  # without a rim
    covered = Painter(128).scene(shapes, poses, (shapes, poses[1:]))
    np.testing.assert_array_equal(covered, Painter(128).scene(shapes, poses))


def test_outlines_are_thin_and_in_colour():
    painter, shapes = Painter(128), Shapes.of(["O"])
    picture = np.full((128, 128), BACKGROUND, np.uint8)
    painter.outline(picture, shapes, np.array([[256.0, 256.0, 0.0]]), FAR[None])
    assert set(np.unique(picture)) == {BACKGROUND, INDICES["O"], AGENT}
    assert picture[64, 64] == BACKGROUND and 4 * 14 < (picture == INDICES["O"]).sum() < 4 * 18
    filled = np.full_like(picture, INDICES["O"])
    painter.outline(filled, shapes, np.array([[256.0, 256.0, 0.0]]), FAR[None])
    np.testing.assert_array_equal(filled == BACKGROUND, picture == INDICES["O"])
