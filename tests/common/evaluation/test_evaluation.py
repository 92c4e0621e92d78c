"""Evaluation gives the same results however it is spread, and reports what happened."""

import numpy as np
import pytest
import torch

from common.evaluation import evaluate as evaluation
from common.evaluation.evaluate import Evaluation, summarise
from common.evaluation.player import episode_seeds
from tests.helpers.evaluation import EPISODES, SHAPE, run_fake
from tests.helpers.fake_agents import PointAgent
from tests.helpers.point_world import FRAME, NearPointWorld, PointWorld, point_world


@pytest.fixture
def no_rendering_probe(monkeypatch):
    """The fake world draws without OpenGL."""
    monkeypatch.setattr(evaluation, "rendering_problem", lambda: None)


@pytest.fixture(scope="module")
def alone() -> Evaluation:
    return run_fake(1, 1)


@pytest.mark.parametrize(("num_envs", "workers"), [(3, 1), (3, 2), (4, 2), (9, 3)])
def test_results_do_not_depend_on_how_episodes_are_spread(alone, num_envs, workers):
    assert run_fake(num_envs, workers).rows == alone.rows


@pytest.mark.parametrize("num_envs", [1, 3, 9])
def test_environments_in_this_process_give_the_same_results(alone, num_envs):
    assert run_fake(num_envs, 2, world=point_world(12, NearPointWorld)).rows == alone.rows


def test_episodes_that_end_at_different_times_are_all_run_once():
    one = run_fake(1, 1, world=point_world(40, quick=True))
    lengths = [row["episode_length"] for row in one.rows]
    assert len(set(lengths)) > 1
    assert one.env_steps == sum(lengths)
    many = run_fake(3, 2, world=point_world(40, quick=True))
    assert many.rows == one.rows


def test_filming_changes_no_result(alone, no_rendering_probe):
    filmed = run_fake(3, 2, videos=3, video_frame_skip=5)
    assert filmed.rows == alone.rows
    assert [clip.episode for clip in filmed.clips] == [0, 1, 2]
    for clip in filmed.clips:
        assert clip.goal.shape == FRAME
        assert len(clip.frames) == 4  # steps 0, 5 and 10 of 12, and the end
        assert all((frame == 200).all() for frame in clip.frames)  # drawn with the subgoal
        assert clip.successes[-1] == filmed.rows[clip.episode]["success"]


def test_without_rendering_everything_but_video_works(alone, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "rendering_problem", lambda: "no OpenGL")
    blind = run_fake(3, 1, videos=2)
    assert blind.rows == alone.rows
    assert blind.clips == []
    told = "warning: no video, because this machine cannot render: no OpenGL\n"
    assert capsys.readouterr().out == told


def test_rows_tell_episode_seed_and_metrics(alone):
    assert [row["episode"] for row in alone.rows] == list(range(EPISODES))
    assert [row["seed"] for row in alone.rows] == [episode_seeds(7, i)[0] for i in range(EPISODES)]
    assert list(alone.rows[0]) == ["episode", "seed", *PointWorld.metrics]
    assert {row["episode_length"] for row in alone.rows} == {12.0}
    assert len({row["episode_reward"] for row in alone.rows} | {0}) > 1


def test_another_seed_gives_other_episodes(alone):
    other = run_fake(2, 1, seed=8)
    assert all(a["seed"] != b["seed"] for a, b in zip(alone.rows, other.rows, strict=True))


def test_episode_seeds_are_a_pure_function_without_collisions():
    seeds = [episode_seeds(s, i) for s in range(5) for i in range(200)]
    assert len(set(seeds)) == len(seeds)
    assert episode_seeds(3, 4) == episode_seeds(3, 4)


def test_the_agent_is_asked_once_for_all_live_episodes():
    agent = PointAgent(SHAPE)
    run_fake(4, 2, agent=agent)
    assert agent.largest == 4


def test_identities_are_those_of_the_episode_in_observation_and_goal():
    seen = []

    class Watching(PointAgent):
        def act(self, timestep):
            for obs, goal in zip(timestep.obs, timestep.goal, strict=True):
                seen.append((obs[:, 1:], goal[:, 1:]))
            return super().act(timestep)

    run_fake(1, 1, agent=Watching(SHAPE))
    assert all(torch.equal(obs, goal) for obs, goal in seen)
    per_episode = [seen[12 * i : 12 * (i + 1)] for i in range(EPISODES)]
    for steps in per_episode:
        assert all(torch.equal(steps[0][0], obs) for obs, _ in steps)
    assert len({tuple(steps[0][0].flatten().tolist()) for steps in per_episode}) > 1


def test_first_subgoals_are_counted_and_new_ones_told_of(alone):
    """The counter sees state and subgoal as the environment scales them, at step 0 only."""
    seen, lines = [], []

    def counter(state, subgoal):
        seen.append((state, subgoal))
        return float(len(seen))

    class Telling(PointAgent):
        def act(self, timestep):
            rows = (timestep.step % 5 == 0).nonzero().squeeze(1)
            if len(rows):
                timestep.tell(rows, ["   why", *["   halfway"] * len(rows)])
            return super().act(timestep)

    told = run_fake(1, 1, agent=Telling(SHAPE), counter=counter, tell=lines.append)
    assert [row.pop("entities_changed") for row in told.rows] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert told.rows == alone.rows
    assert told.summary["entities_changed"].mean == 3.0
    state, halfway = seen[0]
    assert state.shape == halfway.shape == (2,) and not torch.equal(state, halfway)
    assert state.abs().max() <= 1  # the start lies in this square, not normalised
    told_of = [line.split() for line in lines if line != " episode  step   why"]
    assert [words[2] for words in told_of] == ["halfway"] * len(told_of)
    assert [words[:2] for words in told_of[:4]] == [["0", "0"], ["0", "5"], ["0", "10"], ["1", "0"]]
    assert len(told_of) == 3 * EPISODES == len(lines) // 2


def test_summary_uses_wilson_for_success_and_bootstrap_for_the_rest():
    rows = [
        {"episode": i, "seed": i, "success": float(i < 8), "episode_reward": float(i)}
        for i in range(10)
    ]
    summary = summarise(rows)
    assert list(summary) == ["success", "episode_reward"]
    assert summary["success"].low == pytest.approx(0.4902, abs=1e-4)  # by hand: Wilson, 8 of 10
    assert summary["success"].high == pytest.approx(0.9433, abs=1e-4)
    assert summary["episode_reward"].mean == 4.5
    flat = Evaluation(rows, summary, [], 0, 0.0).figures()
    assert flat["success"] == 0.8
    assert list(flat)[:3] == ["success", "success_low", "success_high"]
    assert np.isfinite(list(flat.values())).all()


def test_no_episode_is_an_error():
    with pytest.raises(ValueError, match="episodes=0"):
        run_fake(1, 1, episodes=0)
