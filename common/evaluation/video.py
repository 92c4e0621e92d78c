"""Pictures of episodes: a grid video and a film strip.

Frames are (H, W, 3) uint8 arrays, all of one size within a grid.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from common.foundation.errors import UserError
from common.foundation.video import BACKGROUND, FRAMES_PER_SECOND, save_video, tile

HOLD = FRAMES_PER_SECOND  # frames that the end of the video stays
REACHED = (60, 200, 90)  # border of a frame that shows a success


@dataclass
class Clip:
    """Frames of one episode.

    Attributes:
        goal: its picture, in a world that has goals.
        subgoals: whether the frames show the current subgoal.
        successes: of each frame, whether it shows one.
        pictures: one of the current subgoal for each frame, where frames cannot show it; or none.
    """

    episode: int
    goal: np.ndarray | None
    subgoals: bool = True
    frames: list[np.ndarray] = field(default_factory=list)
    successes: list[bool] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)

    def add(self, frame: np.ndarray, success: bool, picture: np.ndarray | None = None) -> None:
        self.frames.append(frame)
        self.successes.append(success)
        if picture is not None:
            self.pictures.append(picture)

    def tile(self, index: int, caption: str) -> np.ndarray:
        """The frame at `index` with caption and border."""
        return tile(self.frames[index], caption, REACHED if self.successes[index] else BACKGROUND)

    def goal_tiles(self, caption: str) -> list[np.ndarray]:
        """The goal with its caption, if there is one."""
        return [] if self.goal is None else [tile(self.goal, caption)]


def grid(clips: list[Clip]) -> Iterator[np.ndarray]:
    """Frames of the video: a column for each episode, its goal above its current view.

    In between its current subgoal, if there are pictures of subgoals. Shorter episodes stay on
    their last frame; the end is held for a moment.
    """
    goals = [tile for clip in clips for tile in clip.goal_tiles(f"episode {clip.episode}: goal")]
    for index in range(max(len(clip.frames) for clip in clips) + HOLD):
        rows = [goals] if goals else []
        if all(clip.pictures for clip in clips):
            shown = [clip.pictures[min(index, len(clip.pictures) - 1)] for clip in clips]
            rows.append([tile(frame, "subgoal") for frame in shown])
        rows.append([_view(clip, min(index, len(clip.frames) - 1)) for clip in clips])
        yield np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _view(clip: Clip, index: int) -> np.ndarray:
    caption = "now, with subgoal" if clip.subgoals else "now"
    return clip.tile(index, "goal reached" if clip.successes[index] else caption)


def strip(clip: Clip, moments: int = 5) -> np.ndarray:
    """One picture of an episode: evenly spaced moments from start to end, then its goal."""
    last = len(clip.frames) - 1
    tiles = []
    for index in (round(last * i / (moments - 1)) for i in range(moments)):
        reached = ", goal reached" if clip.successes[index] else ""
        tiles.append(clip.tile(index, f"{index / max(last, 1):.0%} of the episode{reached}"))
    return np.concatenate([*tiles, *clip.goal_tiles("goal")], axis=1)


def save_grid(path: str | os.PathLike[str], clips: list[Clip]) -> None:
    """Write the clips as a grid video, see `save_video`.

    Raises `UserError` if there is nothing to show or the disk refuses.
    """
    if not clips:
        raise UserError(f"no filmed episodes for {path}; set num_video_episodes above 0")
    save_video(path, grid(clips))
