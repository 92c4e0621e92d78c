"""Evaluation: many environments in worker processes, one batched policy call per step.

Episode i of a seed is the same episode with the same result whatever the number of environments and
workers: its environment seed and its random generator come from (seed, i), and the row of an
episode in a batch does not depend on the other rows. In a world with T evaluation tasks, episode i
is one of task i mod T, so more episodes add to the earlier ones.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from agents.base import Agent
from agents.subgoals import Proposal
from common.env_pool import EnvPool, Lost, Reply, Start, Step
from common.errors import UserError
from common.observations import Normaliser, Observation
from common.processes import Patience, available_cores
from common.statistics import Interval, average, proportion
from common.subgoal_watch import HEADER, EntityCounter, describe
from common.video import Clip
from envs.base import World
from envs.rendering import rendering_problem

log = logging.getLogger(__name__)


class EvaluationStopped(Exception):
    """The caller wanted the evaluation to stop before it had a result."""


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation.

    Attributes:
        rows: one per episode in order: `episode`, `seed`, `task` in a world with evaluation tasks,
            and the world's metrics.
        summary: metric -> mean with its 95 % interval over the episodes.
        tasks: the same of each evaluation task; empty in a world without.
        clips: of the filmed episodes, in order.
        env_steps, seconds: environment steps in all and wall time.
    """

    rows: list[dict[str, float | int]]
    summary: dict[str, Interval]
    clips: list[Clip]
    env_steps: int
    seconds: float
    tasks: dict[int, dict[str, Interval]] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """The summary as one flat row: `success`, `success_low`, `success_high`, ...

        Then the means of each task: `task1_success`, ...
        """
        flat = {}
        for name, interval in self.summary.items():
            flat |= {name: interval.mean, f"{name}_low": interval.low}
            flat[f"{name}_high"] = interval.high
        for task, summary in self.tasks.items():
            flat |= {f"task{task}_{name}": interval.mean for name, interval in summary.items()}
        return flat


def episode_seeds(seed: int, episode: int) -> tuple[int, int]:
    """Seeds of an episode's environment and of its agent's draws, 32 bits each."""
    env_seed, agent_seed = np.random.SeedSequence([seed, episode]).generate_state(2)
    return int(env_seed), int(agent_seed)


def evaluate(
    agent: Agent,
    world: World,
    observation: Observation,
    normaliser: Normaliser,
    *,
    episodes: int,
    seed: int,
    num_envs: int,
    workers: int,
    patience: Patience = Patience(),  # noqa: B008  a frozen constant
    tasks: Sequence[int] = (),
    videos: int = 0,
    video_frame_skip: int = 3,
    progress: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    counter: EntityCounter | None = None,
    tell: Callable[[str], None] | None = None,
) -> Evaluation:
    """Run episodes 0 to `episodes` - 1 of `seed` and measure them; with tasks, `episodes` of each.

    Args:
        num_envs: environments at once. No influence on the results.
        workers: processes that host them; 0 = one per core. No influence on the results.
        patience: what is done about episodes whose environment or worker fails.
        tasks: the evaluation tasks to run, in a world that has such.
        videos: the first this many episodes are filmed, if the machine can render.
        video_frame_skip: every this many steps a frame is drawn.
        progress: show a progress bar with environment steps per second and time left.
        stopped: asked between steps; once it is true the evaluation is broken off.
        counter: adds the figure `entities_changed`, of each episode's first subgoal.
        tell: is told the values of each new subgoal, line by line; the agent must be a hierarchy.

    Raises:
        EvaluationStopped: because of `stopped`.
        RuntimeError: an episode failed too often; the message names episode and seed.
    """
    if episodes < 1:
        raise ValueError(f"episodes={episodes} must be at least 1")
    began = time.monotonic()
    episodes *= max(len(tasks), 1)
    films = _filmable(world, min(videos, episodes))
    player = _Player(
        agent,
        observation,
        normaliser,
        world,
        seed,
        tasks,
        films,
        video_frame_skip,
        counter,
        tell,
    )
    total = episodes * world.max_episode_steps
    pool_size = min(num_envs, episodes), workers or available_cores()
    with (
        EnvPool(world, *pool_size, pixels=observation.pixels, patience=patience) as pool,
        tqdm(total=total, disable=not progress, desc="evaluate", unit=" steps") as bar,
    ):
        _run(player, pool, episodes, bar, stopped)
    rows = [player.rows[i] for i in range(episodes)]
    clips = [player.clips[i] for i in range(films)]
    by_task = {task: summarise([row for row in rows if row["task"] == task]) for task in tasks}
    seconds = time.monotonic() - began
    return Evaluation(rows, summarise(rows), clips, player.env_steps, seconds, by_task)


def summarise(rows: list[dict[str, float | int]]) -> dict[str, Interval]:
    """Mean and interval of each metric: Wilson's for `success`, bootstrap for the others."""
    names = [name for name in rows[0] if name not in ("episode", "seed", "task")]
    columns = {name: [float(row[name]) for row in rows] for name in names}
    return {
        name: proportion(values) if name == "success" else average(values)
        for name, values in columns.items()
    }


def check_rendering(world: World, observation: Observation) -> None:
    """Raise `UserError` if episodes need images that this machine cannot draw."""
    problem = rendering_problem() if observation.pixels and world.needs_opengl else None
    if problem:
        raise UserError(f"an agent that sees images cannot be evaluated here: {problem}")


def _filmable(world: World, videos: int) -> int:
    """How many of the episodes can be filmed: all, or none with a warning that says why."""
    problem = rendering_problem() if videos and world.needs_opengl else None
    if problem:
        log.warning("warning: no video, because this machine cannot render: %s", problem)
        return 0
    return videos


def _run(
    player: "_Player", pool: EnvPool, episodes: int, bar: tqdm, stopped: Callable[[], bool]
) -> None:
    """Hand out the episodes in order, the filmed ones to the slots with a camera, until all end."""
    filmed = deque(range(player.films))
    plain = deque(range(player.films, episodes))
    orders: dict[int, Start | Step] = {}
    free = list(range(pool.num_envs))
    while True:
        for slot in free:
            queue = filmed if slot in pool.camera_slots and filmed else plain
            if queue:
                orders[slot] = player.start(slot, queue.popleft())
        if not orders:
            return
        if stopped():
            raise EvaluationStopped
        replies = pool.exchange(orders)
        steps, again, free = player.env_steps, {}, []
        for slot, reply in replies.items():
            if isinstance(reply, Lost):
                log.warning("warning: %s", reply.reason)
                again[slot] = player.drop(slot)
            elif player.take(slot, reply):
                free.append(slot)
        bar.update(player.env_steps - steps)
        orders = player.decide()
        orders |= {slot: player.start(slot, index) for slot, index in again.items()}


@dataclass
class _Episode:
    """A running episode as the master sees it; tensors without a batch axis."""

    index: int
    seed: int
    task: int | None
    generator: torch.Generator
    identities: Tensor
    raw: np.ndarray | None = None  # newest observation of the environment
    goal: Tensor | None = None
    memory: Tensor | None = None
    scene: np.ndarray | None = None  # the raw goal, of a filmed episode
    pictured: tuple[Tensor, np.ndarray | None] | None = None  # a subgoal and its picture
    step: int = 0
    figures: dict[str, float] = field(default_factory=dict)  # besides the world's metrics


@dataclass
class _Player:
    """Plays the agent's part in all running episodes and gathers their results."""

    agent: Agent
    observation: Observation
    normaliser: Normaliser
    world: World
    seed: int
    tasks: Sequence[int]
    films: int
    frame_skip: int
    counter: EntityCounter | None
    tell: Callable[[str], None] | None
    live: dict[int, _Episode] = field(default_factory=dict)  # by slot
    rows: dict[int, dict[str, float | int]] = field(default_factory=dict)  # by episode
    clips: dict[int, Clip] = field(default_factory=dict)
    env_steps: int = 0

    def start(self, slot: int, index: int) -> Start:
        """Begin episode `index` in `slot`."""
        env_seed, agent_seed = episode_seeds(self.seed, index)
        generator = torch.Generator().manual_seed(agent_seed)
        identities = self.observation.identities(1, generator)[0]
        task = self.tasks[index % len(self.tasks)] if self.tasks else None
        self.live[slot] = _Episode(index, env_seed, task, generator, identities)
        return Start(index, env_seed, film=index < self.films, task=task)

    def drop(self, slot: int) -> int:
        """Forget the episode of a slot, which is returned: it has to begin again."""
        episode = self.live.pop(slot)
        self.env_steps -= episode.step
        return episode.index

    def take(self, slot: int, reply: Reply) -> bool:
        """Note what a slot replied; whether its episode is over."""
        episode = self.live[slot]
        episode.raw = reply.observation
        if reply.goal is not None:
            episode.goal = self._encode([reply.goal], [episode])[0]
            episode.memory = self.agent.begin(episode.goal)
            if episode.index < self.films:
                episode.scene = reply.goal
                shown = not self.observation.pixels
                self.clips[episode.index] = Clip(episode.index, reply.goal_frame, shown)
            return False
        episode.step += 1
        self.env_steps += 1
        for view in reply.views:
            self.clips[episode.index].add(view.frame, view.success, self._picture(episode))
        if reply.metrics is None:
            return False
        about = {"episode": episode.index, "seed": episode.seed}
        if episode.task is not None:
            about["task"] = episode.task
        metrics = {name: reply.metrics[name] for name in self.world.metrics}
        self.rows[episode.index] = about | metrics | episode.figures
        del self.live[slot]
        return True

    @torch.inference_mode()
    def decide(self) -> dict[int, Start | Step]:
        """One step for every running episode, from one call of the agent."""
        if not self.live:
            return {}
        episodes = list(self.live.values())
        actions, memory = self.agent.act(
            self._encode([episode.raw for episode in episodes], episodes),
            torch.stack([episode.goal for episode in episodes]),
            torch.tensor([episode.step for episode in episodes], device=self._device),
            torch.stack([episode.memory for episode in episodes]),
            [episode.generator for episode in episodes],
            **self._watch(episodes),
        )
        for episode, own in zip(episodes, memory, strict=True):
            episode.memory = own
            if self.counter and episode.step == 0:
                changed = self.counter(torch.from_numpy(episode.raw), self._subgoal_state(episode))
                episode.figures["entities_changed"] = changed
        actions = actions.float().cpu().numpy()
        return dict(zip(self.live, map(self._order, episodes, actions), strict=True))

    def _watch(self, episodes: list[_Episode]) -> dict[str, Any]:
        """The argument with which an agent of two levels tells of its new subgoals, if wanted."""
        if self.tell is None:
            return {}

        def watch(rows: Tensor, proposal: Proposal) -> None:
            self.tell(HEADER)
            for row, i in enumerate(rows.tolist()):
                self.tell(describe(proposal, row, episodes[i].index, episodes[i].step))

        return {"watch": watch}

    def _order(self, episode: _Episode, action: np.ndarray) -> Step:
        if episode.index >= self.films:
            return Step(action)
        return Step(action, episode.step % self.frame_skip == 0, self._shown(episode))

    def _shown(self, episode: _Episode) -> np.ndarray | None:
        """The subgoal of an episode as an environment state, (S,); images show none."""
        return None if self.observation.pixels else self._subgoal_state(episode).numpy()

    @torch.inference_mode()
    def _picture(self, episode: _Episode) -> np.ndarray | None:
        """The subgoal of an episode as a frame, for kinds that have such; drawn once."""
        pursued = self.agent.pursued(episode.memory, episode.goal)
        if episode.pictured is None or not torch.equal(episode.pictured[0], pursued):
            subgoal = self.normaliser.inverse(pursued)
            picture = self.observation.picture(subgoal, episode.scene)
            episode.pictured = pursued, picture
        return episode.pictured[1]

    def _subgoal_state(self, episode: _Episode) -> Tensor:
        """The subgoal of an episode as an environment state, (S,) on the CPU."""
        pursued = self.agent.pursued(episode.memory, episode.goal)
        subgoal = self.normaliser.inverse(pursued)
        subgoal = self.observation.align(subgoal, episode.identities)
        return self.observation.decode(subgoal.unsqueeze(0))[0].cpu()

    @torch.inference_mode()
    def _encode(self, raw: list[np.ndarray], episodes: list[_Episode]) -> Tensor:
        """Raw rows of E episodes -> what the agent sees, (E, *shape) on its device."""
        rows = torch.from_numpy(np.stack(raw))
        identities = torch.stack([episode.identities for episode in episodes])
        return self.normaliser(self.observation.encode(rows, identities).to(self._device))

    @property
    def _device(self) -> torch.device:
        return self.normaliser.mean.device
