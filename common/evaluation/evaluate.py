"""Evaluation: many environments in the workers of a pool, one batched policy call per step.

Episode i of a seed is the same episode with the same result whatever the number of environments and
workers: its environment seed and its random generator come from (seed, i), and the row of an
episode in a batch does not depend on the other rows. In a world with T evaluation tasks, episode i
is one of task i mod T, so more episodes add to the earlier ones.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from agents.base import Agent
from agents.observations.states import Observation
from common.data.normaliser import Normaliser
from common.evaluation.environments import EnvPool
from common.evaluation.intervals import Interval, average, proportion
from common.evaluation.player import Player
from common.evaluation.rounds import Rounds
from common.evaluation.subgoals import EntityCounter, watching
from common.evaluation.video import Clip
from common.foundation.errors import UserError
from common.foundation.messages import warn
from common.foundation.pool import Patience
from common.foundation.processes import available_cores
from common.foundation.progress import Bar
from common.runs.setup import Setup
from common.settings.config import Config
from envs.base import World
from envs.rendering import rendering_problem


class EvaluationStopped(Exception):
    """The caller wanted the evaluation to stop before it had a result."""


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation, in order of the episodes.

    Attributes:
        rows: one per episode: `episode`, `seed`, `task` in a world with evaluation tasks, and the
            world's metrics.
        summary: metric -> mean with its 95 % interval over the episodes.
        clips: of the filmed episodes.
        env_steps, seconds: environment steps in all and wall time.
        tasks: a summary of each evaluation task; empty in a world without.
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
        patience: limits for episodes whose environment or worker fails.
        tasks: the evaluation tasks to run, in a world that has such.
        videos: the first this many episodes are filmed, if the machine can render.
        video_frame_skip: every this many steps a frame is drawn.
        progress: show a progress bar with environment steps per second and time left.
        stopped: asked between steps; once it is true the evaluation is broken off.
        counter: adds the figure `entities_changed`, of each episode's first subgoal.
        tell: is told the values of each new subgoal, line by line; the agent must be a hierarchy.

    Raises:
        EvaluationStopped: because of `stopped`.
        JobFailed: an episode failed too often; the message names episode and seed.
    """
    if episodes < 1:
        raise ValueError(f"episodes={episodes} must be at least 1")
    began = time.monotonic()
    episodes *= max(len(tasks), 1)
    films = _filmable(world, min(videos, episodes))
    seen = agent, observation, normaliser, world
    player = Player(*seen, seed, tasks, films, video_frame_skip, counter, tell)
    total = episodes * world.max_episode_steps
    size = min(num_envs, episodes), workers or available_cores()
    with (
        EnvPool(world, *size, observation.pixels, patience) as pool,
        Bar(total=total, disable=not progress, desc="evaluate", unit=" steps") as bar,
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
    """Number of episodes that can be filmed: all, or none with a warning that says why."""
    problem = rendering_problem() if videos and world.needs_opengl else None
    if problem:
        warn(f"no video, because this machine cannot render: {problem}", once=True)
        return 0
    return videos


def _run(
    player: Player, pool: EnvPool, episodes: int, bar: Bar, stopped: Callable[[], bool]
) -> None:
    """Hand out the episodes in order, the filmed ones to the slots with a camera, until all end."""
    filmed = deque(range(player.films))
    plain = deque(range(player.films, episodes))
    rounds = Rounds(player, pool)
    free = list(range(pool.num_envs))
    while True:
        for slot in free:
            queue = filmed if slot in pool.camera_slots and filmed else plain
            if queue:
                rounds.start(slot, queue.popleft())
        if not player.live:
            return
        if stopped():
            raise EvaluationStopped
        steps = player.env_steps
        free = rounds.play()
        bar.update(player.env_steps - steps)


def prepare_evaluation(config: Config, setup: Setup) -> Callable[..., Evaluation]:
    """`evaluate` with all its arguments but `seed` and `stopped`.

    Raises `UserError`, long before an evaluation begins, if the settings ask for something that
    this agent, world or machine cannot do.
    """
    check_rendering(setup.world, setup.observation)
    return partial(
        evaluate,
        setup.agent,
        setup.world,
        setup.observation,
        setup.normaliser,
        episodes=config.num_eval_episodes,
        num_envs=config.num_eval_envs,
        workers=config.num_workers,
        patience=Patience(config.worker_timeout, config.worker_retries),
        tasks=config.eval_tasks,
        videos=config.num_video_episodes if config.save_video else 0,
        video_frame_skip=config.video_frame_skip,
        progress=True,
        **watching(config, setup),
    )
