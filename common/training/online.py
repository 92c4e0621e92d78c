"""Acting of an agent that learns from what it does itself: the source of its data.

Acting and learning alternate as the number of the update says: before update k, as many environment
steps exist as the schedule asks for. So an online run is a pure function of its settings, too.
"""

import copy
import math
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.data.replay import Replay
from common.foundation.errors import UserError
from common.foundation.memory import free_memory
from common.foundation.messages import tell
from common.foundation.progress import Bar
from common.runs.loading import goal_law
from common.runs.setup import Setup, learning_steps, schedule_of
from common.settings.config import Config
from common.training.acting import Actor, Episode
from common.training.recorded import Rows, replay_rows
from common.training.source import Source
from common.training.team import Team
from envs.base import GoalWorld, World

RECENT = 100  # episodes whose mean is shown


class Experience(Source):
    """Cycles of acting that fill the replay, as the schedule asks for.

    The agent that plays a cycle is the one that is there when the cycle begins: after the updates
    of the one before or, if acting and learning `overlap`, before them. All episodes are kept as a
    dataset in the run's folder, from which the replay is filled again when the run goes on. The
    main process of a team acts, the others are given its episodes.

    Attributes:
        cycles: that are learned from. episodes: of them.
    """

    def __init__(
        self, config: Config, setup: Setup, replay: Replay, folder: Path, team: Team
    ) -> None:
        self.setup, self.replay, self.team = setup, replay, team
        self.world = copy.copy(setup.world)
        self.world.max_episode_steps = learning_steps(config, setup.world)
        self.schedule = schedule_of(config, setup.world)
        self.actor = Actor(config, setup, self.world, folder)
        self.cycles = self.episodes = self.rows = 0
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._overlap = config.online.overlap
        self._thread = ThreadPoolExecutor(1)
        self._ahead: Future[bool] | None = None  # the next cycle, if it is being played
        if self._overlap and team.device.type == "cpu" and torch.get_num_threads() > 1:
            raise UserError("online.overlap=true on the CPU needs threads=1, and one more core")

    # --- acting ------------------------------------------------------------------------------

    def provide(self, step: int, stopped: Callable[[], bool]) -> bool:
        missing = self.schedule.cycles(step) - self.cycles
        total, hidden = missing * self.schedule.cycle, missing < 2 or not self.team.is_main
        with Bar(total=total, desc="acting", unit=" steps", leave=False, disable=hidden) as bar:
            for _ in range(missing):
                complete = self.team.is_main and self._play(stopped, bar.update)
                if not self.team.largest(int(complete)):
                    return False
                self._take_in()
                if self._overlap and self.team.is_main:
                    self._play_ahead()
        return True

    def _play(self, stopped: Callable[[], bool], tell: Callable[[int], Any]) -> bool:
        """Play to the end of the next cycle, unless it is `stopped` before."""
        if self._ahead:
            complete, self._ahead = self._ahead.result(), None
            return complete
        return self.actor.play(self.setup.agent, self._end, stopped, tell)

    def _play_ahead(self) -> None:
        """Begin the next cycle beside the updates, with the agent as it is before them."""
        agent = copy.deepcopy(self.setup.agent)
        play = copy_context().run, self.actor.play  # what it tells goes where this thread's does
        self._ahead = self._thread.submit(*play, agent, self._end, lambda: False)

    @property
    def _end(self) -> int:
        """Environment steps at the end of the next cycle."""
        return (self.cycles + 1) * self.schedule.cycle

    def _take_in(self) -> None:
        """Begin to learn from the cycle that was played."""
        ended, self.actor.ended = self.actor.ended, []
        for columns, facts in ended:
            self._recent.append(float(facts["headline"]))
            self.rows += len(columns["actions"])
        new = [self._rows(episode) for episode in ended]
        for i in range(self.team.largest(len(new))):
            self.replay.add(*self._send(new[i] if new else None))
            self.episodes += 1
        self.cycles += 1
        if new := self.team.largest(len(new)):
            self._merge(new)

    def _rows(self, episode: Episode) -> Rows:
        return replay_rows(*episode, self.setup.observation, self.world, self.actor.seed)

    def _merge(self, new: int) -> None:
        """Tell the normaliser of the newest episodes."""
        normaliser = self.setup.normaliser
        if normaliser.scales:
            normaliser.merge(self.replay.raw(new).to(normaliser.mean.device))
            self.actor.renormalise()

    def _send(self, episode: Rows | None) -> Rows:
        """An episode of the main process, in all of the team."""
        replay, team = self.replay, self.team
        if team.size == 1:
            return episode
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

    # --- records -----------------------------------------------------------------------------

    @property
    def progress(self) -> int:
        return self.actor.env_steps

    def counts(self) -> dict[str, float]:
        return {"env_steps": self.cycles * self.schedule.cycle, "episodes": self.episodes}

    def figures(self) -> dict[str, float]:
        recent = sum(self._recent) / max(len(self._recent), 1)
        return self.counts() | {f"explore/{self.world.headline}": recent}

    def state_dict(self) -> dict[str, Any]:
        """Also waits for a cycle that is being played: what it has done is part of the state."""
        if self._ahead:
            self._ahead.result()
        self.actor.dataset.publish(self.episodes, self.rows)
        counts = [self.cycles, self.episodes, self.rows]
        state = {"counts": counts, "recent": list(self._recent), "ahead": self._ahead is not None}
        return state | {"actor": self.actor.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.cycles, self.episodes, self.rows = state["counts"]
        self._recent.extend(state["recent"])
        self.actor.load_state_dict(state["actor"])
        for index in range(self._oldest(), self.episodes):
            self.replay.add(*self._rows(self.actor.dataset.read(index)))
        if state["ahead"]:
            self._ahead = Future()
            self._ahead.set_result(True)

    def _oldest(self) -> int:
        """The oldest episode that the replay has room for."""
        room, own = len(self.replay.action), int(isinstance(self.world, GoalWorld))
        for index in reversed(range(self.episodes)):
            room -= self.actor.dataset.length(index) + own
            if room < 0:
                return index + 1
        return 0

    def close(self) -> None:
        self._thread.shutdown()
        self.actor.close()


def make_replay(config: Config, setup: Setup) -> Replay:
    """An empty replay of the size that `online.replay_transitions` asks for.

    It holds whole cycles of the longest episodes. Raises `UserError` if not even one fits, if the
    world's rewards cannot be computed from what is kept, or if the memory does not suffice.
    """
    world, observation, online = setup.world, setup.observation, config.online
    own_goals = isinstance(world, GoalWorld)
    if own_goals and world.goal_dim != world.state_dim:
        raise UserError(
            f"env_kwargs.{world.section}.mode={world.settings.mode} has goals of fewer objects "
            "than states, which nothing learns from; train with another and act in this one"
        )
    fields = _reward_columns(config, world) if setup.agent.wants.rewards else {}
    episode = learning_steps(config, world)
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
    tell(f"replay: {episodes} episodes of {episode} steps, {needed / 2**20:.0f} MiB")
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
