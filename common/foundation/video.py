"""Frames, (H, W, 3) uint8 arrays, as tiles with captions and as files."""

import os
from collections.abc import Iterable
from contextlib import closing
from io import BytesIO
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from common.foundation.errors import UserError
from common.foundation.files import atomic_write

FRAMES_PER_SECOND = 15
MIN_HEIGHT = 256  # pixels of a tile; smaller frames are enlarged by a whole number
CAPTION = 22  # pixels of the line of text above a tile
BORDER = 4
BACKGROUND, INK = (24, 24, 28), (235, 235, 235)


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
