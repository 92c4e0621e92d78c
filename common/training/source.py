"""Origins of the data that updates learn from."""

from collections.abc import Callable, Mapping
from typing import Any


class Source:
    """A fixed dataset, which has all data from the start; others make them while training goes on.

    Attributes:
        progress: grows with all that it does.
    """

    progress: int = 0

    def provide(self, step: int, stopped: Callable[[], bool]) -> bool:
        """Make sure that the data of update `step`, counted from 1, exist.

        Asked before each update, in order; a run that goes on begins with the update after its
        checkpoint, so nothing that the checkpoint knows is provided twice. Returns False if it was
        `stopped` before.
        """
        return True

    def counts(self) -> dict[str, float]:
        """Its progress, as columns beside those of evaluations."""
        return {}

    def figures(self) -> dict[str, float]:
        """The same and more, as columns beside those of training."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """All that it needs to go on, ready for a checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state_dict` returned."""

    def close(self) -> None:
        """Let go of other processes, if any."""
