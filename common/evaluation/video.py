"""Pictures of episodes: a grid video and a film strip.

Frames are (H, W, 3) uint8 arrays, all of one size within a grid.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from common.foundation.errors import UserError
from common.foundation.files import atomic_write

FRAMES_PER_SECOND = 15
HOLD = FRAMES_PER_SECOND  # frames that the end of the video stays
MIN_HEIGHT = 256  # pixels of a tile; smaller frames are enlarged by a whole number
CAPTION = 22  # pixels of the line of text above a tile
BORDER = 4
BACKGROUND, INK, REACHED = (24, 24, 28), (235, 235, 235), (60, 200, 90)


@dataclass
class Clip:
    """What was filmed of one episode.

    Attributes:
        episode: its index. goal: picture of its goal.
        frames: the episode. successes: whether each shows a success.
        subgoals: whether the frames show the current subgoal.
        pictures: one of the current subgoal for each frame, where frames cannot show it; or none.
    """

    episode: int
    goal: np.ndarray
    subgoals: bool = True
    frames: list[np.ndarray] = field(default_factory=list)
    successes: list[bool] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)

    def add(self, frame: np.ndarray, success: bool, picture: np.ndarray | None = None) -> None:
        self.frames.append(frame)
        self.successes.append(success)
        if picture is not None:
            self.pictures.append(picture)

    def tile(self, index: int) -> np.ndarray:
        """The frame at `index`, or the last one beyond the end, with caption and border."""
        index = min(index, len(self.frames) - 1)
        success = self.successes[index]
        caption = "now, with subgoal" if self.subgoals else "now"
        caption = "goal reached" if success else caption
        return tile(self.frames[index], caption, REACHED if success else BACKGROUND)


def tile(frame: np.ndarray, caption: str, border: tuple[int, int, int] = BACKGROUND) -> np.ndarray:
    """Enlarge a frame to at least `MIN_HEIGHT`, frame it and write a line of text above it."""
    factor = -(-MIN_HEIGHT // frame.shape[0])
    height, width = factor * frame.shape[0], factor * frame.shape[1]
    picture = Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (width + 2 * BORDER, height + 2 * BORDER + CAPTION), border)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, canvas.width, CAPTION - 1), fill=BACKGROUND)
    draw.text((BORDER, 3), caption, fill=INK, font=ImageFont.load_default(size=14))
    canvas.paste(picture, (BORDER, CAPTION + BORDER))
    return np.asarray(canvas)


def grid(clips: list[Clip]) -> Iterator[np.ndarray]:
    """Frames of the video: a column for each episode, its goal above its current view.

    In between its current subgoal, if there are pictures of subgoals. Shorter episodes stay on
    their last frame; the end is held for a moment.
    """
    goals = [tile(clip.goal, f"episode {clip.episode}: goal") for clip in clips]
    goal_row = np.concatenate(goals, axis=1)
    for index in range(max(len(clip.frames) for clip in clips) + HOLD):
        rows = [goal_row]
        if all(clip.pictures for clip in clips):
            shown = [clip.pictures[min(index, len(clip.pictures) - 1)] for clip in clips]
            rows.append(np.concatenate([tile(frame, "subgoal") for frame in shown], axis=1))
        views = np.concatenate([clip.tile(index) for clip in clips], axis=1)
        yield np.concatenate([*rows, views])


def strip(clip: Clip, moments: int = 5) -> np.ndarray:
    """One picture of an episode: evenly spaced moments from start to end, then its goal."""
    last = len(clip.frames) - 1
    shown = [round(last * i / (moments - 1)) for i in range(moments)]
    tiles = [_moment(clip, index, index / last if last else 0.0) for index in shown]
    return np.concatenate([*tiles, tile(clip.goal, "goal")], axis=1)


def _moment(clip: Clip, index: int, share: float) -> np.ndarray:
    success = clip.successes[index]
    caption = f"{share:.0%} of the episode" + (", goal reached" if success else "")
    return tile(clip.frames[index], caption, REACHED if success else BACKGROUND)


def save_grid(path: str | os.PathLike[str], clips: list[Clip]) -> None:
    """Write the clips as a grid video, see `save_video`.

    Raises `UserError` if there is nothing to show or the disk refuses.
    """
    if not clips:
        raise UserError(f"no filmed episodes for {path}; set num_video_episodes above 0")
    save_video(path, grid(clips))


def save_video(path: str | os.PathLike[str], frames: Iterable[np.ndarray]) -> None:
    """Write frames as an mp4 (H.264, 15 frames per second), atomically.

    Raises `UserError` if the disk refuses.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")  # ffmpeg goes by the suffix
    options = {"fps": FRAMES_PER_SECOND, "macro_block_size": 2}
    try:
        # closing(): the writer's own context does not end ffmpeg after an error
        with closing(imageio.get_writer(temporary, format="FFMPEG", **options)) as writer:
            for frame in frames:
                writer.append_data(_even(frame))
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def save_picture(path: str | os.PathLike[str], frame: np.ndarray) -> None:
    """Write one frame as a PNG, atomically."""
    buffer = BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG", optimize=True)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())


def _even(frame: np.ndarray) -> np.ndarray:
    """Pad to even sides, as H.264 demands."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
