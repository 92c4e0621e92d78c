"""Shape and kind of an observation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ObservationSpec:
    """An observation as networks need to know it.

    Attributes:
        kind: "entities", "flat" or "image".
        shape: (N, D) for entities, (S,) for flat ones, (V*3, H, W) uint8 for images.
        views: V cameras. Of entities the first N/V belong to view 1 and so on; a flat observation
            is one vector after the other.
        explicit: leading features of a particle (position, scale, depth, transparency), which are
            projected apart from its visual features; 0 = all features together.
    """

    kind: str
    shape: tuple[int, ...]
    views: int = 1
    explicit: int = 0

    @property
    def features(self) -> int:
        """D of entities, S of a flat observation."""
        return self.shape[-1]

    @property
    def visibility(self) -> int | None:
        """The feature of a particle that says how visible it is: the last explicit one."""
        return self.explicit - 1 if self.explicit else None

    @property
    def ordered(self) -> bool:
        """True if rows of two observations of an episode belong together; particles do not."""
        return self.explicit == 0
