"""Pictures of what an encoder makes of images."""

from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from common.files import atomic_write


def save_picture(path: Path, rows: Tensor) -> None:
    """Write pictures (R, n, 3, S, S) in [0, 1] as one PNG of R rows and n columns."""
    from PIL import Image

    count, across, _, side, _ = rows.shape
    grid = rows.permute(0, 3, 1, 4, 2).reshape(count * side, across * side, 3)
    pixels = (grid.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    with atomic_write(path) as file:
        file.write(buffer.getvalue())
