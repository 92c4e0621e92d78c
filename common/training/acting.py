"""Episodes that a run acts in, recorded on disk; the same ones wherever it was stopped."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.evaluation.environments import EnvPool
from common.evaluation.player import Player, Recording
from common.evaluation.rounds import Rounds
from common.foundation.pool import Patience
from common.foundation.processes import available_cores
from common.runs.setup import Setup
from common.settings.config import Config
from common.training.recorded import episode_columns, stored_columns
from datasets.recording import GrowingDataset
from envs.base import World

# Episodes that are learned from differ from those of evaluations with the same seed.
ACTING_STREAM = 2 << 32

Episode = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]  # columns, and what is not of steps


class Actor:
    """Plays episode after episode in each of several environments.

    Args:
        world: of the environments, with the limit of their episodes. folder: of the run.

    Attributes:
        seed: of the episodes. dataset: all that ended.
        started, stored: episodes that began, and that ended. env_steps: environment steps so far.
        ended: those among the stored that nobody has taken yet.
    """

    def __init__(self, config: Config, setup: Setup, world: World, folder: Path) -> None:
        self.config, self.setup, self.world = config, setup, world
        self.seed = config.seed + ACTING_STREAM
        self.started = self.stored = self.env_steps = 0
        self.ended: list[Episode] = []
        self._running: dict[int, dict[str, Any]] = {}  # states to restore, by slot
        self._rounds: Rounds | None = None
        self._pool = contextlib.ExitStack()
        columns = stored_columns(setup.observation, world)
        about = {"command": f"the training in {folder}", "seed": config.seed}
        longest = world.max_episode_steps + 1
        self.dataset = GrowingDataset(folder / "experience", world, columns, longest, about)

    def play(
        self,
        agent: Any,
        steps: int,
        stopped: Callable[[], bool],
        tell: Callable[[int], Any] = lambda steps: None,
    ) -> bool:
        """Let `agent` act until there are so many environment steps; False if `stopped` before.

        `tell` is told of steps as they are done.
        """
        rounds = self._open()
        rounds.player.agent = agent
        while self.env_steps < steps:
            if stopped():
                return False
            for slot in rounds.play():
                self._start(slot)
            tell(rounds.player.env_steps - self.env_steps)
            self.env_steps = rounds.player.env_steps
        return True

    def renormalise(self) -> None:
        """See running episodes through a normaliser that has changed."""
        if self._rounds:
            self._rounds.player.renormalise()

    def _open(self) -> Rounds:
        """The environments, with the running episodes where they were."""
        if self._rounds is None:
            config, count = self.config, self.config.online.envs_per_cycle
            patience = Patience(config.worker_timeout, config.worker_retries)
            size = count, config.num_workers or available_cores()
            pixels = self.setup.observation.pixels
            pool = self._pool.enter_context(EnvPool(self.world, *size, pixels, patience))
            seen = self.setup.observation, self.setup.normaliser, self.world, self.seed
            player = Player(self.setup.agent, *seen, recorder=self._store)
            self._rounds = Rounds(player, pool)
            begun = {slot: own for slot, own in self._running.items() if own["begun"]}
            self._rounds.restore(begun)
            player.env_steps = self.env_steps
            for slot in range(count):
                if slot not in self._running:
                    self._start(slot)
                elif slot not in begun:
                    self._rounds.start(slot, self._running[slot]["index"])
        return self._rounds

    def _start(self, slot: int) -> None:
        self._rounds.start(slot, self.started)
        self.started += 1

    def _store(self, recording: Recording) -> None:
        episode = episode_columns(recording, self.setup.observation, self.world)
        self.dataset.write(self.stored, *episode)
        self.ended.append(episode)
        self.stored += 1

    def state_dict(self) -> dict[str, Any]:
        """All that it needs to go on, ready for a checkpoint, besides the dataset."""
        running = self._running
        if self._rounds:
            player = self._rounds.player
            running = {slot: player.state_of(slot) for slot in player.live}
        counts = [self.started, self.stored, self.env_steps, len(self.ended)]
        return {"counts": counts, "running": running}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.started, self.stored, self.env_steps, ended = state["counts"]
        self.ended = [self.dataset.read(i) for i in range(self.stored - ended, self.stored)]
        self._running = state["running"]

    def close(self) -> None:
        self._pool.close()
        self._rounds = None
