"""The agent's part in the episodes of an evaluation that run at the same time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from agents.base import Agent, Timestep
from agents.observations.states import Observation
from common.data.batches import Tree
from common.data.normaliser import Normaliser
from common.evaluation.environments import Reply, Start, Step
from common.evaluation.subgoals import EntityCounter
from common.evaluation.video import Clip
from envs.base import World

EPISODE_COLUMNS = " episode  step"  # columns before what an agent tells of a decision


def episode_seeds(seed: int, episode: int) -> tuple[int, int]:
    """Seeds of an episode's environment and of its agent's draws, 32 bits each."""
    env_seed, agent_seed = np.random.SeedSequence([seed, episode]).generate_state(2)
    return int(env_seed), int(agent_seed)


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
    memory: Tree = None
    scene: np.ndarray | None = None  # the raw goal, of a filmed episode
    pictured: tuple[Tensor, np.ndarray | None] | None = None  # a subgoal and its picture
    step: int = 0
    figures: dict[str, float] = field(default_factory=dict)  # besides the world's metrics


@dataclass
class Player:
    """Plays the agent's part in all running episodes and gathers their results.

    Knows nothing of what an agent remembers. Worlds without goals reply none.
    """

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
        begins, episode.raw = episode.raw is None, reply.observation
        if begins:
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
        goals = [episode.goal for episode in episodes]
        timestep = Timestep(
            self._encode([episode.raw for episode in episodes], episodes),
            None if goals[0] is None else torch.stack(goals),
            torch.tensor([episode.step for episode in episodes], device=self._device),
            torch.stack([episode.memory for episode in episodes]),
            [episode.generator for episode in episodes],
            tell=self.tell and partial(self._tell, episodes),
        )
        actions, memory = self.agent.act(timestep)
        for episode, own in zip(episodes, memory.unbind(0), strict=True):
            episode.memory = own
            if self.counter and episode.step == 0:
                changed = self.counter(torch.from_numpy(episode.raw), self._subgoal_state(episode))
                episode.figures["entities_changed"] = changed
        actions = actions.float().cpu().numpy()
        return dict(zip(self.live, map(self._order, episodes, actions), strict=True))

    def _tell(self, episodes: list[_Episode], rows: Tensor, table: list[str]) -> None:
        """Pass on what an agent tells of decisions, with the episodes they are of."""
        heading, *lines = table
        self.tell(EPISODE_COLUMNS + heading)
        for row, line in zip(rows.tolist(), lines, strict=True):
            self.tell(f"{episodes[row].index:8d}{episodes[row].step:6d}{line}")

    def _order(self, episode: _Episode, action: np.ndarray) -> Step:
        if episode.index >= self.films:
            return Step(action)
        return Step(action, episode.step % self.frame_skip == 0, self._shown(episode))

    def _shown(self, episode: _Episode) -> np.ndarray | None:
        """The subgoal of an episode as an environment state, (S,); images show none."""
        shown = not (self.observation.pixels or self._pursued(episode) is None)
        return self._subgoal_state(episode).numpy() if shown else None

    @torch.inference_mode()
    def _picture(self, episode: _Episode) -> np.ndarray | None:
        """The subgoal of an episode as a frame, for kinds that have such; drawn once."""
        pursued = self._pursued(episode)
        if pursued is None:
            return None
        if episode.pictured is None or not torch.equal(episode.pictured[0], pursued):
            subgoal = self.normaliser.inverse(pursued)
            picture = self.observation.picture(subgoal, episode.scene)
            episode.pictured = pursued, picture
        return episode.pictured[1]

    def _subgoal_state(self, episode: _Episode) -> Tensor:
        """The subgoal of an episode as an environment state, (S,) on the CPU."""
        subgoal = self.normaliser.inverse(self._pursued(episode))
        subgoal = self.observation.align(subgoal, episode.identities)
        return self.observation.decode(subgoal.unsqueeze(0))[0].cpu()

    def _pursued(self, episode: _Episode) -> Tensor | None:
        return self.agent.pursued(episode.memory, episode.goal)

    @torch.inference_mode()
    def _encode(self, raw: list[np.ndarray], episodes: list[_Episode]) -> Tensor:
        """Raw rows of E episodes -> what the agent sees, (E, *shape) on its device."""
        rows = torch.from_numpy(np.stack(raw))
        identities = torch.stack([episode.identities for episode in episodes])
        return self.normaliser(self.observation.encode(rows, identities).to(self._device))

    @property
    def _device(self) -> torch.device:
        return self.normaliser.mean.device
