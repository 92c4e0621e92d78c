"""Acting of an agent that learns from what it does itself: the source of its data.

Acting and learning alternate as the number of the update says: before update k, as many environment
steps exist as the schedule asks for. So an online run is a pure function of its settings, too.
"""

import contextlib
import copy
import math
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from common.data.replay import Replay
from common.evaluation.environments import EnvPool
from common.evaluation.player import Player, Recording
from common.evaluation.rounds import Rounds
from common.foundation.errors import UserError
from common.foundation.memory import free_memory
from common.foundation.pool import Patience
from common.foundation.processes import available_cores
from common.runs.loading import goal_law
from common.runs.setup import Setup
from common.settings.config import Config
from common.training.recorded import Rows, episode_columns, replay_rows, stored_columns
from common.training.source import Source
from common.training.team import Team
from datasets.recording import GrowingDataset
from envs.base import GoalWorld, World

# Episodes that are learned from differ from those of evaluations with the same seed.
ACTING_STREAM = 2 << 32
RECENT = 100  # episodes whose mean is shown

Stopped = Callable[[], bool]


class Experience(Source):
    """Acts in many environments at once and fills the replay, as the schedule asks for.

    All episodes are kept as a dataset in the run's folder, from which the replay is filled again
    when the run goes on; running ones are then repeated from their seeds and actions. The main
    process of a team acts, the others are given its episodes.

    Attributes:
        cycles: that were played. finished: episodes that ended. started: episodes that began.
        env_steps: environment steps so far. merged: episodes that the normaliser knows.
    """

    def __init__(
        self, config: Config, setup: Setup, replay: Replay, folder: Path, team: Team
    ) -> None:
        self.config, self.setup, self.replay, self.team = config, setup, replay, team
        self.world = copy.copy(setup.world)
        self.world.max_episode_steps = config.online.max_episode_steps or setup.world.learning_steps
        self.schedule = config.online.schedule(self.world.max_episode_steps)
        self.cycles = self.finished = self.started = self.env_steps = self.merged = self.rows = 0
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._fresh: list[Rows] = []  # episodes that the team does not have yet
        self._running: dict[int, dict[str, Any]] = {}  # states to restore, by slot
        self._rounds: Rounds | None = None
        self._pool = contextlib.ExitStack()
        columns = stored_columns(setup.observation, self.world)
        about = {"command": f"the training in {folder}", "seed": config.seed}
        longest = self.world.max_episode_steps + 1
        self.dataset = GrowingDataset(folder / "experience", self.world, columns, longest, about)

    # --- acting ------------------------------------------------------------------------------

    def provide(self, step: int, stopped: Stopped = lambda: False) -> bool:
        due = self.schedule.cycles(step)
        if self.cycles == due:
            return True
        total = (due - self.cycles) * self.schedule.cycle
        hidden = not self.team.is_main or due - self.cycles == 1
        with tqdm(total=total, desc="acting", unit=" steps", leave=False, disable=hidden) as bar:
            while self.cycles < due:
                if not self._play_cycle(stopped, bar):
                    return False
        return True

    def _play_cycle(self, stopped: Stopped, bar: tqdm) -> bool:
        """Play to the end of a cycle, unless it is `stopped` before."""
        end = (self.cycles + 1) * self.schedule.cycle
        if self.team.is_main:
            rounds = self._open()
            while self.env_steps < end and not stopped():
                before = self.env_steps
                for slot in rounds.play():
                    self._start(slot)
                self.env_steps = rounds.player.env_steps
                bar.update(self.env_steps - before)
        self.env_steps = self.team.largest(self.env_steps)
        self._share()
        if self.env_steps < end:
            return False
        self.cycles += 1
        self._merge()
        return True

    def _open(self) -> Rounds:
        """The environments, with the running episodes where they were."""
        if self._rounds is None:
            config, count = self.config, self.config.online.envs_per_cycle
            patience = Patience(config.worker_timeout, config.worker_retries)
            size = count, config.num_workers or available_cores()
            pixels = self.setup.observation.pixels
            pool = self._pool.enter_context(EnvPool(self.world, *size, pixels, patience))
            setup = self.setup
            seen = setup.agent, setup.observation, setup.normaliser, self.world
            player = Player(*seen, self._seed, (), 0, 1, None, None, recorder=self._store)
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

    @property
    def _seed(self) -> int:
        return self.config.seed + ACTING_STREAM

    def _start(self, slot: int) -> None:
        self._rounds.start(slot, self.started)
        self.started += 1

    def _store(self, recording: Recording) -> None:
        """Keep an episode that ended, on disk and in the replay."""
        columns, facts = episode_columns(recording, self.setup.observation, self.world)
        self.dataset.write(self.finished, columns, facts)
        self._recent.append(float(recording.metrics[self.world.headline]))
        self._add(columns, facts)
        self.finished += 1

    def _add(self, columns: Mapping[str, np.ndarray], facts: Mapping[str, np.ndarray]) -> None:
        """Put an episode into the replay."""
        episode = replay_rows(columns, facts, self.setup.observation, self.world, self._seed)
        self.replay.add(*episode)
        self.rows += len(columns["actions"])
        if self.team.size > 1:
            self._fresh.append(episode)

    def _share(self) -> None:
        """Give the other processes of the team the main one's new episodes."""
        fresh, self._fresh = self._fresh, []
        for i in range(self.team.largest(len(fresh)) if self.team.size > 1 else 0):
            episode = fresh[i] if fresh else None
            own = self._broadcast(episode)
            if episode is None:
                self.replay.add(*own)
                self.finished += 1

    def _broadcast(self, episode: Rows | None) -> Rows:
        """An episode of the main process, in all."""
        replay, team = self.replay, self.team
        obs, action, columns, *numbers = episode or (None, None, {}, 0, False)
        total = team.largest(0 if obs is None else len(obs))

        def send(column: Tensor, own: Tensor | None) -> Tensor:
            shape = (total, *column.shape[1:])
            x = torch.empty(shape, dtype=column.dtype) if own is None else own
            x = x.to(team.device)
            team.copy_from_main(x)
            return x

        rows = {name: send(c, columns.get(name)) for name, c in replay.reward_rows.items()}
        length, moved = map(team.largest, map(int, numbers))
        return send(replay.obs, obs), send(replay.action, action), rows, length, bool(moved)

    def _merge(self) -> None:
        """Tell the normaliser of the episodes since the last cycle."""
        normaliser, new = self.setup.normaliser, self.finished - self.merged
        if normaliser.scales and new:
            normaliser.merge(self.replay.raw(new).to(normaliser.mean.device))
            if self._rounds:
                self._rounds.player.renormalise()
        self.merged = self.finished

    # --- records -----------------------------------------------------------------------------

    @property
    def progress(self) -> int:
        return self.env_steps

    def counts(self) -> dict[str, float]:
        return {"env_steps": self.env_steps, "episodes": self.finished}

    def figures(self) -> dict[str, float]:
        recent = sum(self._recent) / max(len(self._recent), 1)
        return self.counts() | {f"explore/{self.world.headline}": recent}

    def state_dict(self) -> dict[str, Any]:
        self.dataset.publish(self.finished, self.rows)
        running = self._running
        if self._rounds:
            player = self._rounds.player
            running = {slot: player.state_of(slot) for slot in player.live}
        return {
            "counts": [self.cycles, self.finished, self.started, self.env_steps, self.merged],
            "rows": self.rows,
            "recent": list(self._recent),
            "running": running,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.cycles, self.finished, self.started, self.env_steps, self.merged = state["counts"]
        self._recent.extend(state["recent"])
        self._running = state["running"]
        for index in range(self._oldest(), self.finished):
            self._add(*self.dataset.read(index))
        self.rows = state["rows"]
        self._fresh.clear()

    def _oldest(self) -> int:
        """The oldest episode that the replay has room for."""
        room, own = len(self.replay.action), int(isinstance(self.world, GoalWorld))
        for index in reversed(range(self.finished)):
            room -= self.dataset.length(index) + own
            if room < 0:
                return index + 1
        return 0

    def close(self) -> None:
        self._pool.close()
        self._rounds = None


def make_replay(config: Config, setup: Setup) -> Replay:
    """An empty replay of the size that `online.replay_transitions` asks for.

    It holds whole cycles of the longest episodes. Raises `UserError` if not even one fits, if the
    world's rewards cannot be computed from what is kept, or if the memory does not suffice.
    """
    world, observation, online = setup.world, setup.observation, config.online
    own_goals = isinstance(world, GoalWorld)
    fields = _reward_columns(config, world)
    episode = online.max_episode_steps or world.learning_steps
    cycle = online.envs_per_cycle * episode
    if online.replay_transitions < cycle:
        raise UserError(
            f"online.replay_transitions={online.replay_transitions} is less than the {cycle} of "
            f"{online.envs_per_cycle} episodes; give at least that"
        )
    episodes = online.replay_transitions // cycle * online.envs_per_cycle
    rows = episodes * (episode + 1 + own_goals)
    place = setup.normaliser.mean.device if config.data_device != "cpu" else torch.device("cpu")
    numbers = math.prod(observation.shape) * observation.dtype.itemsize
    needed = rows * (numbers + 4 * (world.actions.size + sum(map(math.prod, fields.values()))))
    free = free_memory(place)
    if needed > free:
        raise UserError(
            f"online.replay_transitions={online.replay_transitions} takes {needed / 2**30:.1f} GiB "
            f"with obs={config.obs}, {place} has {free / 2**30:.1f} GiB free; give fewer"
        )
    tqdm.write(f"replay: {episodes} episodes of {episode} steps, {needed / 2**20:.0f} MiB")
    return Replay(
        rows,
        observation.shape,
        observation.dtype,
        world.actions.size,
        fields,
        world.reward if fields else None,
        goals=goal_law(config),
        own_goals=own_goals,
        done_signal=config.done_signal,
        normalise=setup.normaliser,
        device=place,
    )


def _reward_columns(config: Config, world: World) -> dict[str, tuple[int, ...]]:
    """Shapes of the columns that rewards are computed from, of which only the state is kept."""
    if config.reward != "env" or not isinstance(world, GoalWorld):
        return {}
    if set(world.reward_fields) != {world.state_column}:
        raise UserError(
            f"task={world.name} computes rewards from {', '.join(world.reward_fields)}, and agents "
            "that learn online have states alone; use reward=unsupervised or task=pushing-v0"
        )
    return {world.state_column: (world.state_dim,)}
