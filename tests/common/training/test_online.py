"""Acting as a source of data: its schedule, its traces, and going on to the same bits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from agents.observations.kinds import make_observation
from common.data.replay import Replay
from common.data.wants import Transitions
from common.foundation.errors import UserError
from common.runs import checkpoint
from common.runs.loading import goal_law
from common.runs.setup import Setup
from common.settings.config import compose
from common.settings.schema import SettingError
from common.training.online import Experience, make_replay
from common.training.team import Team
from datasets.store import Dataset
from envs.make import make_world
from tests.faults import kills
from tests.helpers.point_world import PointWorld, point_world

CPU = torch.device("cpu")
STEPS = 6  # of an episode


class FarCourse(PointWorld):
    """The point walk, whose rewards are of the state."""

    reward_fields = ("state_observations",)

    def reward(self, rows, goals):
        difference = rows["state_observations"] - goals["state_observations"]
        return -difference.norm(dim=-1).clamp(max=1)


class Course(FarCourse):
    """The same, stepped in the process itself."""

    in_process = True


class Explorer:
    """Walks at random, remembers how often it was asked, and looks at what it sees."""

    wants = Transitions()

    def begin(self, goal):
        return TensorDict({"asked": torch.zeros(())})

    def act(self, timestep):
        assert timestep.explore
        noise = torch.stack([torch.rand(2, generator=g) for g in timestep.generators])
        asked = timestep.memory["asked"]
        seen = timestep.obs.flatten(1)[:, :2] + timestep.goal.flatten(1)[:, :2]
        action = (noise - 0.5 + 0.1 * seen + 0.01 * asked[:, None]).clamp(-1, 1)
        return action, TensorDict({"asked": asked + 1}, batch_size=[len(asked)])


class Run:
    """A source with all that it fills, in a folder."""

    def __init__(self, folder: Path, *overrides: str, **settings) -> None:
        base = ["online.envs_per_cycle=3", "online.warmup_episodes=3", "obs=ec_state"]
        config = compose([*base, "online.replay_transitions=60", "num_workers=1", *overrides])
        world = point_world(STEPS, settings.pop("kind", Course), **settings)
        observation = make_observation(config.obs, world)
        self.setup = Setup(Explorer(), world, observation, observation.start(CPU))
        self.replay = make_replay(config, self.setup)
        self.source = Experience(config, self.setup, self.replay, folder, Team(CPU))

    def play(self, updates: int, rounds: int | None = None) -> bool:
        """Provide for updates in turn, and give up after so many rounds."""
        left = iter(range(rounds)) if rounds is not None else iter(int, 1)
        ready = True
        for step in range(1, updates + 1):
            ready = ready and self.source.provide(step, lambda: next(left, None) is None)
        return ready

    def state(self) -> dict:
        """All that the source and the normaliser are, through a checkpoint's file."""
        return {"source": self.source.state_dict(), "normaliser": self.setup.normaliser.state}

    def restore(self, state: dict) -> None:
        for name, value in state["normaliser"].items():
            getattr(self.setup.normaliser, name).copy_(value)
        self.source.load_state_dict(state["source"])


@pytest.fixture
def make_run(tmp_path):
    runs = []

    def make(name: str, *overrides: str, **settings) -> Run:
        runs.append(Run(tmp_path / name, *overrides, **settings))
        return runs[-1]

    yield make
    for run in runs:
        run.source.close()


def through_file(state: dict, path: Path) -> dict:
    tensors, structure = checkpoint.flatten(state)
    checkpoint.save(path, tensors, structure)
    return checkpoint.unflatten(*checkpoint.load(path))


def assert_same(one: Run, other: Run) -> None:
    """The same episodes on disk and in the replay, and the same statistics."""
    assert one.source.counts() == other.source.counts()
    for name, own in one.setup.normaliser.state.items():
        assert torch.equal(own, other.setup.normaliser.state[name]), name
    for index in range(one.source.episodes):
        for own, theirs in zip(
            *(r.source.actor.dataset.read(index) for r in (one, other)), strict=True
        ):
            assert own.keys() == theirs.keys()
            for name, column in own.items():
                np.testing.assert_array_equal(column, theirs[name])
    assert len(one.replay) == len(other.replay)
    assert torch.equal(one.replay.episodes.length, other.replay.episodes.length)
    draws = [torch.Generator().manual_seed(0) for _ in range(2)]
    a, b = (r.replay.sample(64, g) for r, g in zip((one, other), draws, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


# --- schedule -------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps, updates, total", [(30, 240, 251_040), (100, 800, 3_036_800)])
def test_published_schedule(steps, updates, total):
    """Four cycles of warm-up, updates from the fifth on, half as many as steps (ECRL)."""
    schedule = compose([]).online.schedule(steps)
    assert (schedule.warmup, schedule.cycle, schedule.updates) == (4, 16 * steps, updates)
    assert [schedule.cycles(k) for k in (1, updates, updates + 1)] == [5, 5, 6]
    env_steps = {251_040: 504_000, 3_036_800: 6_080_000}[total]
    assert schedule.cycles(total) * schedule.cycle == env_steps


def test_one_update_a_step_of_all_environments():
    online = ["online.steps_per_cycle=16", "online.updates_per_step=0.0625"]
    schedule = compose([*online, "online.warmup_episodes=2"]).online.schedule(10)
    assert (schedule.warmup, schedule.updates) == (2, 1)
    assert [schedule.cycles(k) for k in (1, 2, 3)] == [3, 4, 5]


def test_a_cycle_without_an_update_is_refused():
    online = compose(["online.updates_per_step=0.01"]).online
    with pytest.raises(SettingError, match=r"no update for the 96 .* at least 0.01"):
        online.schedule(6)


# --- acting ---------------------------------------------------------------------------------------


def test_cycles_are_played_when_their_updates_come(make_run):
    run = make_run("run")  # cycles of 18 steps, 9 updates after each
    found = []
    for step in (1, 9, 10, 18, 19):
        assert run.play(1) if step == 1 else run.source.provide(step, lambda: False)
        found.append(run.source.actor.env_steps)
    assert found == [36, 36, 54, 54, 72]
    assert run.source.episodes == 12


def test_experience_is_a_dataset_with_the_last_states(make_run):
    run = make_run("run")
    run.play(1)
    run.source.state_dict()
    data = Dataset.open(run.source.actor.dataset.folder.parent, "experience")
    columns, lengths = data.load(["actions", "state_observations", "terminals"])
    assert lengths.tolist() == [STEPS + 1] * 6
    assert columns["terminals"].reshape(6, -1).sum(axis=1).tolist() == [1] * 6
    moves = np.diff(columns["state_observations"].reshape(6, -1, 2), axis=1)
    asked = 0.1 * columns["actions"].reshape(6, -1, 2)[:, :-1]
    assert np.abs(moves - asked).max() < 0.01  # what an action does, but for noise of 0.001
    assert list(data.problems()) == []


def test_replay_has_rewards_of_goals_that_episodes_had(make_run):
    run = make_run("run")
    run.play(1)
    replay, goals = run.replay, run.replay.episodes.own
    states = replay.reward_rows["state_observations"]
    for index in range(6):
        _, facts = run.source.actor.dataset.read(index)
        np.testing.assert_array_equal(states[goals[index]], facts["goal_state"])
    assert torch.equal(replay.obs[..., 0], states)  # rows are not normalised yet
    assert not torch.equal(replay.observe(goals)[..., 0], states[goals])


def test_normaliser_has_seen_each_state_but_the_last_of_its_episode(make_run):
    run = make_run("run")
    run.play(1)
    rows = torch.cat([run.replay.obs.reshape(-1, STEPS + 2, *run.replay.obs.shape[1:])[:6, :STEPS]])
    normaliser = run.setup.normaliser
    flat = rows.reshape(-1, rows.shape[-1]).double()
    torch.testing.assert_close(normaliser.mean.double(), flat.mean(dim=0), atol=1e-6, rtol=0)
    spread = flat.var(dim=0, unbiased=False)
    torch.testing.assert_close(normaliser.var.double(), spread, atol=1e-6, rtol=0)


# --- the same bits --------------------------------------------------------------------------------

OVERLAP = ("online.overlap=true",)
ENDLESS = ("online.steps_per_cycle=4", "online.updates_per_step=0.25")  # episodes go on over cycles


@pytest.mark.parametrize("rounds", range(0, 22, 3))
@pytest.mark.parametrize(
    "overrides, quick",
    [((), False), (ENDLESS, True), (OVERLAP, False), ((*ENDLESS, *OVERLAP), True)],
)
def test_stopped_anywhere_and_continued(make_run, tmp_path, rounds, overrides, quick):
    updates = 10
    whole = make_run("whole", *overrides, quick=quick)
    assert whole.play(updates)
    first = make_run("stopped", *overrides, quick=quick)
    first.play(updates, rounds)
    state = through_file(first.state(), tmp_path / "state.safetensors")
    first.play(2)  # a killed run did more than its checkpoint knows
    first.source.close()
    second = make_run("stopped", *overrides, quick=quick)
    second.restore(state)
    assert second.play(updates)
    assert_same(whole, second)


def test_workers_change_nothing(make_run):
    one, many = make_run("one"), make_run("many", "num_workers=2", kind=FarCourse)
    assert one.play(10) and many.play(10)
    assert_same(one, many)


@pytest.mark.parametrize("trouble", ["raise", "die"])
def test_an_episode_whose_worker_fails_goes_on_where_it_was(make_run, tmp_path, trouble):
    (tmp_path / "marks").mkdir()
    marks = str(tmp_path / "marks")
    trouble = {"trouble": trouble, "trouble_step": 4, "marks": marks}
    troubled = make_run("troubled", kind=FarCourse, **trouble)
    whole = make_run("whole")
    assert whole.play(10) and troubled.play(10)
    assert len(list((tmp_path / "marks").iterdir())) == 1
    assert_same(whole, troubled)


# --- replay ---------------------------------------------------------------------------------------


def test_the_oldest_episodes_make_room(make_run):
    run = make_run("run")  # room for nine episodes
    run.play(1 + 9 * 3)
    assert run.source.episodes == 15
    assert len(run.replay.episodes.first) == 9
    states = run.replay.reward_rows["state_observations"]
    for place, index in enumerate(range(6, 15)):
        rows = run.replay.episodes.first[place] + torch.arange(STEPS + 1)
        columns, _ = run.source.actor.dataset.read(index)
        stored = states[rows % len(states)].numpy()
        np.testing.assert_array_equal(stored, columns["state_observations"])


def test_a_replay_smaller_than_a_cycle_is_refused(make_run):
    with pytest.raises(UserError, match=r"online.replay_transitions=17 is less than the 18 of 3"):
        make_run("run", "online.replay_transitions=17")


def test_goals_of_fewer_objects_are_refused():
    overrides = [
        "agent=td3",
        "task=pushing-v0",
        "obs=ec_state",
        "env_kwargs.pushing.mode=sort_push",
    ]
    config = compose(overrides)
    world = make_world(config)
    setup = Setup(Explorer(), world, make_observation(config.obs, world), None)
    with pytest.raises(UserError, match="mode=sort_push has goals of fewer objects than states"):
        make_replay(config, setup)


def test_a_replay_larger_than_memory_is_refused(make_run):
    with pytest.raises(UserError, match=r"online.replay_transitions=\d+ takes .* GiB"):
        make_run("run", "online.replay_transitions=100000000000")


def test_an_episode_longer_than_the_replay_is_a_mistake():
    law = goal_law(compose([]))
    replay = Replay(
        4, (1,), torch.float32, 1, {}, None,
        goals=law, own_goals=False, done_signal=False, normalise=lambda x: x, device=CPU,
    )  # fmt: skip
    with pytest.raises(ValueError, match="5 rows, the replay has 4"):
        replay.add(torch.zeros(5, 1), torch.zeros(5, 1), {}, 5, True)


# --- real processes -------------------------------------------------------------------------------


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path):
    """Metrics, parameters and episodes; `python -m tests.faults` kills more often."""
    job = kills.online_jobs()[-1]
    tally = kills.run(job, 1, tmp_path)
    assert (tally.tried, tally.lost) == (1, [])
