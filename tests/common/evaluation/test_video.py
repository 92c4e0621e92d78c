"""Videos and pictures can be read back and show what they should."""

import imageio.v2 as imageio
import numpy as np
import pytest

from common.evaluation import video
from common.evaluation.video import Clip, save_grid, strip
from common.foundation.errors import UserError
from common.foundation.video import BORDER, CAPTION, save_picture, tile


def make_clip(episode: int, frames: int, success: bool, size=(32, 48)) -> Clip:
    clip = Clip(episode, np.full((*size, 3), 200, np.uint8))
    for i in range(frames):
        clip.add(np.full((*size, 3), 10 * i, np.uint8), success and i == frames - 1)
    return clip


def test_video_has_all_frames_and_its_layout(tmp_path):
    clips = [make_clip(0, 4, True), make_clip(1, 6, False)]
    save_grid(tmp_path / "video.mp4", clips)
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]
    frames = imageio.mimread(tmp_path / "video.mp4", memtest=False)
    assert len(frames) == 6 + video.HOLD
    height, width = 2 * (256 + 2 * BORDER + CAPTION), 2 * (384 + 2 * BORDER)
    assert frames[0].shape == (height, width, 3)
    middle_of_goal = frames[0][height // 4, width // 4]
    middle_of_view = frames[3][3 * height // 4, width // 4]
    np.testing.assert_allclose(middle_of_goal, 200, atol=6)
    np.testing.assert_allclose(middle_of_view, 30, atol=6)
    reached = frames[-1][-2, width // 4].astype(int)  # the border below the first column
    np.testing.assert_allclose(reached, video.REACHED, atol=30)
    assert np.abs(frames[-1][-2, 3 * width // 4].astype(int) - reached).max() > 60


def test_frame_rate_is_fifteen(tmp_path):
    save_grid(tmp_path / "video.mp4", [make_clip(0, 2, False)])
    with imageio.get_reader(tmp_path / "video.mp4") as reader:
        assert reader.get_meta_data()["fps"] == 15


def test_odd_sizes_are_padded(tmp_path):
    save_grid(tmp_path / "video.mp4", [make_clip(0, 1, False, size=(257, 101))])
    frame = imageio.mimread(tmp_path / "video.mp4", memtest=False)[0]
    assert frame.shape == (2 * (257 + 8 + 22), 110, 3)


def test_a_failed_write_leaves_the_old_video_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "video.mp4"
    path.write_bytes(b"old")

    def broken(clips):
        yield np.zeros((32, 32, 3), np.uint8)
        raise OSError("disk full")

    monkeypatch.setattr(video, "grid", broken)
    with pytest.raises(UserError, match="disk full"):
        save_grid(path, [make_clip(0, 1, False)])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_filmed_is_an_error(tmp_path):
    with pytest.raises(UserError, match="num_video_episodes"):
        save_grid(tmp_path / "video.mp4", [])


def test_tile_enlarges_small_frames_only():
    assert tile(np.zeros((128, 128, 3), np.uint8), "").shape == (256 + 8 + 22, 256 + 8, 3)
    assert tile(np.zeros((300, 200, 3), np.uint8), "").shape == (300 + 8 + 22, 208, 3)


def test_strip_goes_from_start_to_end_to_goal(tmp_path):
    save_picture(tmp_path / "strip.png", strip(make_clip(0, 11, True), moments=3))
    picture = imageio.imread(tmp_path / "strip.png")
    centres = [picture[150, 200 + 392 * i, 0] for i in range(4)]
    assert centres == [0, 50, 100, 200]
    assert tuple(picture[-1, 2 * 392 + 100]) == video.REACHED


def test_strip_of_a_single_frame():
    assert strip(make_clip(0, 1, False)).shape[1] == 6 * 392


def test_without_goals_there_are_the_views_alone(tmp_path):
    clip = Clip(0, None, subgoals=False)
    clip.add(np.full((32, 48, 3), 90, np.uint8), False)
    (frame, *_) = video.grid([clip])
    assert frame.shape == (256 + 2 * BORDER + CAPTION, 384 + 2 * BORDER, 3)
    assert strip(clip).shape[1] == 5 * 392
