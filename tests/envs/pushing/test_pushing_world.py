"""The pushing world: its data, and agents that see it."""

import numpy as np
import pytest
import torch

from agents.observations.kinds import make_observation
from common.data.normaliser import Normaliser
from common.evaluation.evaluate import evaluate
from common.foundation.errors import UserError
from common.runs.setup import make_setup
from common.settings.config import compose
from tests.conftest import TINY
from tests.helpers.datasets import record
from tests.helpers.pushing_worlds import make_world


def test_data_fit_every_task_with_the_same_table_and_objects():
    header = make_world(num_objects=3).describe()
    fits = {"mode": "adjacent_goals"}, {"num_objects": 3}, {"mode": "num_cubes"}
    assert [make_world(**changes).compatible(header) for changes in fits] == [None] * 3
    for changes, message in (
        ({"num_objects": 2}, "the data has num_objects=3, this environment num_objects=2"),
        ({"mode": "small_table"}, "the data is of mode=n_cubes, whose table or objects are others"),
        ({"mode": "push_t"}, "the data is of mode=n_cubes"),
    ):
        assert message in make_world(**changes).compatible(header)
    drawn = header | {"pixels": True}
    assert "render_quality=full" in make_world(num_objects=3, render_quality="fast").compatible(
        drawn
    )


def test_collected_rows(tmp_path):
    world = make_world(num_objects=2, max_episode_steps=8)
    dataset = record(tmp_path, "rows", world, episodes=2)
    columns, lengths = dataset.load(["actions", "state_observations", "qpos"])
    assert lengths.tolist() == [8, 8]
    layout = world.qpos_layout()
    states = columns["state_observations"].reshape(16, 3, 2)
    for i, (first, _) in enumerate(layout.values()):
        np.testing.assert_array_equal(states[:, i], columns["qpos"][:, first : first + 2])
    moves, asked = np.diff(states[:8, 0], axis=0), columns["actions"][:7, :2]
    free = (abs(states[1:8, 0]) < (0.26, 0.31)).all(axis=1)
    np.testing.assert_allclose(moves[free], 0.125 * 0.9 * asked[free], atol=0.03)
    figures = world.statistics(columns, lengths)
    assert 0.02 < figures["mean pusher move (m)"] < 0.12
    assert compose(world.collect_overrides()).world.num_objects == 2


@pytest.mark.parametrize("kind", ["ec_state", "ec_state_gen"])
def test_an_agent_of_three_cubes_sorts_twelve_by_colour(kind):
    """Goals have a cube of each colour, whose identity is that of all cubes of the colour."""
    three, twelve = make_world(num_objects=3), make_world(mode="sort_push", max_episode_steps=2)
    observations = [make_observation(kind, world) for world in (three, twelve)]
    assert observations[0].shape[1] == observations[1].shape[1]
    identities = observations[1].identities(1, torch.Generator().manual_seed(0))
    goal = torch.from_numpy(twelve.make().reset(seed=0)[1]["state_goal"])[None]
    rows = observations[1].encode(goal, identities)
    assert rows.shape == (1, 4, observations[0].shape[1])
    of_color = identities[0, 1:].reshape(4, 3)
    assert (of_color == of_color[0]).all() and len(set(of_color[0].tolist())) == 3
    assert torch.equal(rows[0, :, 2:].argmax(1), identities[0, :4])
    config = compose([*TINY, "task=pushing-v0", "agent=iql", f"obs={kind}"])
    normaliser = Normaliser.none(torch.device("cpu"))
    agent = make_setup(config, three, observations[0], normaliser).agent
    parts = agent, twelve, observations[1], normaliser
    result = evaluate(*parts, episodes=1, seed=0, num_envs=1, workers=1)
    assert result.summary.keys() == set(twelve.metrics)


def test_what_needs_goals_of_whole_states_is_refused():
    sort = ["task=pushing-v0", "env_kwargs.pushing.mode=sort_push"]
    world = make_world(mode="sort_push")
    with pytest.raises(UserError, match="goals of mode=sort_push have fewer objects"):
        make_observation("state", world)
    config = compose([*TINY, *sort, "obs=ec_state"])
    observation = make_observation("ec_state", world)
    with pytest.raises(UserError, match=r"set sgiql\.disable_subgoal=true"):
        make_setup(config, world, observation, Normaliser.none(torch.device("cpu")))
