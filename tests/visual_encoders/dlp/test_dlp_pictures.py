"""Pictures of DLP: what is drawn where."""

import torch

from tests.helpers.dlp_models import small_images, small_model
from visual_encoders.dlp.encoders import Particles
from visual_encoders.dlp.pictures import draw_particles, hues, pictures


def particles(positions, on):
    count = len(positions)
    rows = torch.zeros(1, count, 9)
    rows[0, :, :2] = torch.tensor(positions)
    rows[0, :, 5] = torch.tensor(on)
    return Particles.from_rows(rows)


def test_dots_lie_at_the_positions_in_their_colours():
    grey = torch.full((1, 3, 64, 64), 0.5)
    drawn = draw_particles(grey, particles([[-0.5, 0.5], [0.5, 0.0]], [1.0, 0.5]))[0]
    first, second = hues(2)
    torch.testing.assert_close(drawn[:, 16, 47], first)  # row -0.5, column 0.5
    torch.testing.assert_close(drawn[:, 47, 31], 0.5 * second + 0.25)
    changed = (drawn != 0.5).any(dim=0)
    assert changed[10:22, 41:54].sum() + changed[41:54, 25:38].sum() == changed.sum() > 0


def test_what_is_transparent_is_not_drawn():
    grey = torch.full((1, 3, 64, 64), 0.5)
    assert torch.equal(draw_particles(grey, particles([[0.0, 0.0]], [0.0])), grey)


def test_hues_differ_and_start_with_red():
    colours = hues(6)
    torch.testing.assert_close(colours[0], torch.tensor([1.0, 0.0, 0.0]), rtol=0, atol=1e-6)
    assert len(colours.unique(dim=0)) == 6 and colours.min() == 0 and colours.max() == 1


def test_pictures_of_a_batch():
    model, images = small_model(), small_images(3)
    rows = pictures(model, images)
    assert list(rows) == ["image", "particles", "reconstruction", "objects", "background"]
    assert all(picture.shape == images.shape for picture in rows.values())
    assert all(p.min() >= 0 and p.max() <= 1 + 1e-6 for p in rows.values())
    again = pictures(model, images)
    assert all(torch.equal(rows[name], again[name]) for name in rows)
