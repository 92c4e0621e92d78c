"""Colours of pictures of the plane, which are arrays (size, size) of indices of the palette."""

import numpy as np

from envs.pushtetris import rules

# Background, pieces in the order of `rules.PIECES`, agent, walls, targets, and contacts, whose
# colours are blends of the one here and what lies under them.
BACKGROUND = 0
AGENT, WALL, TARGET, CONTACT = range(len(rules.PIECES) + 1, len(rules.PIECES) + 5)
PALETTE = np.array(
    [
        (255, 255, 255),
        *(piece.color for piece in rules.PIECES.values()),
        (0, 0, 0),
        (211, 211, 211),
        (119, 136, 153),
        (231, 76, 60),
    ],
    np.uint8,
)
INDICES = {name: 1 + index for index, name in enumerate(rules.PIECES)}
