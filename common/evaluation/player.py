"""The agent's part in the episodes of an evaluation that run at the same time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
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


def episode_identities(observation: Observation, seed: int, episode: int) -> Tensor:
    """Identities of the entities of an episode, (N,); the first of its agent's draws."""
    generator = torch.Generator().manual_seed(episode_seeds(seed, episode)[1])
    return observation.identities(1, generator)[0]


@dataclass
class Recording:
    """Observations and actions of a recorded episode so far, one row more than actions at the end.

    Attributes:
        index: of the episode. identities: of its entities.
        rows: what observations are made of, raw or, of a frozen encoder, its output (*shape).
        states: (S,) each. actions: (A,) each. metrics: the world's, at the end.
        goal: a row of that kind, in a world that has goals. goal_state: (S,).
    """

    index: int
    identities: Tensor
    rows: list[Any] = field(default_factory=list)
    states: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    metrics: Mapping[str, float] = field(default_factory=dict)
    goal: Any = None
    goal_state: np.ndarray | None = None


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
    recording: Recording | None = None


@dataclass
class Player:
    """Plays the agent's part in all running episodes and gathers their results.

    Knows nothing of what an agent remembers. Worlds without goals reply none. With a `recorder`,
    which is given each episode that ended, agents act so that something is learned from it.
    """

    agent: Agent
    observation: Observation
    normaliser: Normaliser
    world: World
    seed: int
    tasks: Sequence[int] = ()
    films: int = 0
    frame_skip: int = 1
    counter: EntityCounter | None = None
    tell: Callable[[str], None] | None = None
    live: dict[int, _Episode] = field(default_factory=dict)  # by slot
    rows: dict[int, dict[str, float | int]] = field(default_factory=dict)  # by episode
    clips: dict[int, Clip] = field(default_factory=dict)
    env_steps: int = 0
    recorder: Callable[[Recording], None] | None = None

    def start(self, slot: int, index: int) -> Start:
        """Begin episode `index` in `slot`."""
        env_seed, agent_seed = episode_seeds(self.seed, index)
        generator = torch.Generator().manual_seed(agent_seed)
        identities = self.observation.identities(1, generator)[0]
        task = self.tasks[index % len(self.tasks)] if self.tasks else None
        recording = Recording(index, identities) if self.recorder else None
        self.live[slot] = _Episode(
            index, env_seed, task, generator, identities, recording=recording
        )
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
                seen = self._observe([reply.goal], [episode])
                episode.goal = self._normalised(seen)[0]
                if episode.recording:
                    episode.recording.goal = self._row(reply.goal, seen[0])
                    episode.recording.goal_state = _state(reply.goal, reply.goal_state)
            episode.memory = self.agent.begin(episode.goal)
            self._note(episode, reply)
            if episode.index < self.films:
                episode.scene = reply.goal
                shown = not self.observation.pixels
                self.clips[episode.index] = Clip(episode.index, reply.goal_frame, shown)
            return False
        episode.step += 1
        self.env_steps += 1
        self._note(episode, reply)
        for view in reply.views:
            self.clips[episode.index].add(view.frame, view.success, self._picture(episode))
        if reply.metrics is None:
            return False
        metrics = {name: reply.metrics[name] for name in self.world.metrics}
        del self.live[slot]
        if episode.recording:
            self._record(episode)
            episode.recording.metrics = metrics
            self.recorder(episode.recording)
            return True
        about = {"episode": episode.index, "seed": episode.seed}
        if episode.task is not None:
            about["task"] = episode.task
        self.rows[episode.index] = about | metrics | episode.figures
        return True

    @torch.inference_mode()
    def decide(self) -> dict[int, Start | Step]:
        """One step for every episode that has begun, from one call of the agent."""
        begun = {slot: e for slot, e in self.live.items() if e.raw is not None}
        if not begun:
            return {}
        episodes = list(begun.values())
        goals = [episode.goal for episode in episodes]
        seen = self._observe([episode.raw for episode in episodes], episodes)
        numbers = torch.tensor([episode.index for episode in episodes], device=self._device)
        timestep = Timestep(
            self._normalised(seen),
            None if goals[0] is None else torch.stack(goals),
            torch.tensor([episode.step for episode in episodes], device=self._device),
            torch.stack([episode.memory for episode in episodes]),
            [episode.generator for episode in episodes],
            explore=self.recorder is not None,
            episode=numbers,
            tell=self.tell and partial(self._tell, episodes),
        )
        actions, memory = self.agent.act(timestep)
        for episode, own in zip(episodes, memory.unbind(0), strict=True):
            episode.memory = own
            if self.counter and episode.step == 0:
                changed = self.counter(torch.from_numpy(episode.raw), self._subgoal_state(episode))
                episode.figures["entities_changed"] = changed
        actions = actions.float().cpu().numpy()
        for episode, own, action in zip(episodes, seen, actions, strict=True):
            if episode.recording:
                self._record(episode, own)
                episode.recording.actions.append(action)
        return dict(zip(begun, map(self._order, episodes, actions), strict=True))

    @torch.inference_mode()
    def repeat(self, slot: int, action: np.ndarray) -> Step:
        """The step of a recorded episode that takes an action (A,) again."""
        episode = self.live[slot]
        self._record(episode)
        episode.recording.actions.append(action)
        return Step(action)

    def state_of(self, slot: int) -> dict[str, Any]:
        """All that it takes to bring a recorded episode to where it is, ready for a checkpoint."""
        episode = self.live[slot]
        actions = episode.recording.actions
        return {
            "index": episode.index,
            "begun": episode.raw is not None,
            "actions": torch.from_numpy(np.stack(actions)) if actions else torch.empty(0),
            "memory": None if episode.memory is None else episode.memory.to_dict(),
            "generator": episode.generator.get_state(),
        }

    def remember(self, slot: int, state: Mapping[str, Any]) -> None:
        """Give a repeated episode the memory and the draws that `state_of` says it had."""
        episode = self.live[slot]
        memory = TensorDict.from_dict(state["memory"], batch_size=[])
        episode.memory = memory.to(self._device)
        episode.generator.set_state(state["generator"])

    def renormalise(self) -> None:
        """See the goals of recorded episodes as the normaliser, which has changed, makes them."""
        for episode in self.live.values():
            if episode.goal is not None:
                goal = episode.recording.goal
                seen = goal[None] if self.observation.encoded else self._observe([goal], [episode])
                episode.goal = self._normalised(seen)[0]

    def _record(self, episode: _Episode, seen: Tensor | None = None) -> None:
        """Add what a recorded episode sees; `seen` if a frozen encoder has told it already."""
        if self.observation.encoded and seen is None:
            seen = self._observe([episode.raw], [episode])[0]
        episode.recording.rows.append(self._row(episode.raw, seen))

    def _row(self, raw: np.ndarray, seen: Tensor | None) -> Any:
        """The record of a raw row: itself, or what a frozen encoder made of it."""
        return seen.cpu() if self.observation.encoded else raw

    @staticmethod
    def _note(episode: _Episode, reply: Reply) -> None:
        """Note the state of a recorded episode."""
        if episode.recording:
            episode.recording.states.append(_state(reply.observation, reply.state))

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
    def _observe(self, raw: list[np.ndarray], episodes: list[_Episode]) -> Tensor:
        """Raw rows of E episodes -> observations, not normalised, (E, *shape)."""
        rows = torch.from_numpy(np.stack(raw))
        identities = torch.stack([episode.identities for episode in episodes])
        return self.observation.encode(rows, identities)

    def _normalised(self, obs: Tensor) -> Tensor:
        """Observations as the agent sees them, on its device."""
        return self.normaliser(obs.to(self._device))

    @property
    def _device(self) -> torch.device:
        return self.normaliser.mean.device


def _state(raw: np.ndarray, state: np.ndarray | None) -> np.ndarray:
    """The state of a raw row, which is itself one unless it is an image."""
    return raw if state is None else state
