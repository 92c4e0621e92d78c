"""Rounds of episodes that run at the same time: one step of each."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from common.evaluation.environments import EnvPool, Lost, Reply, Start
from common.evaluation.player import Player
from common.foundation.messages import warn


class Rounds:
    """The episodes of a player in the slots of a pool.

    An episode whose environment failed begins again; if it is recorded, what it did is repeated, so
    it goes on where it was.
    """

    def __init__(self, player: Player, pool: EnvPool) -> None:
        self.player, self.pool = player, pool
        self._starts: dict[int, Start] = {}  # orders that wait for the next round, by slot

    def start(self, slot: int, index: int) -> None:
        """Begin episode `index` in `slot` with the next round."""
        self._starts[slot] = self.player.start(slot, index)

    def play(self) -> list[int]:
        """One step of every running episode; returns the slots whose episode is over."""
        orders, self._starts = self.player.decide() | self._starts, {}
        replies = self.pool.exchange(orders)
        return [slot for slot, reply in replies.items() if self._take(slot, reply)]

    def restore(self, states: Mapping[int, Mapping[str, Any]]) -> list[int]:
        """Bring recorded episodes to where they were (`Player.state_of`), by slot.

        Returns the slots whose episode is over then.
        """
        orders = {slot: self.player.start(slot, state["index"]) for slot, state in states.items()}
        left = {slot: deque(state["actions"].numpy()) for slot, state in states.items()}
        over = []
        while orders:
            replies = self.pool.exchange(orders)
            orders = {}
            for slot, reply in replies.items():
                if isinstance(reply, Lost):
                    over += self._restart(slot, states[slot], reply)
                elif self.player.take(slot, reply):
                    over.append(slot)
                elif left[slot]:
                    orders[slot] = self.player.repeat(slot, left[slot].popleft())
                else:
                    self.player.remember(slot, states[slot])
        return over

    def _take(self, slot: int, reply: Reply | Lost) -> bool:
        """Note a reply; whether the episode of the slot is over."""
        if isinstance(reply, Reply):
            return self.player.take(slot, reply)
        if self.player.recorder:
            return bool(self._restart(slot, self.player.state_of(slot), reply))
        warn(reply.reason)
        self.start(slot, self.player.drop(slot))
        return False

    def _restart(self, slot: int, state: Mapping[str, Any], lost: Lost) -> list[int]:
        warn(lost.reason)
        self.player.drop(slot)
        return self.restore({slot: state})
