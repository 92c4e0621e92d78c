"""Counting the objects that a subgoal moves, and where that makes no sense."""

import pytest
import torch

from agents.observations.kinds import make_observation
from common.data.normaliser import Normaliser
from common.evaluation.subgoals import EntityCounter, watching
from common.foundation.errors import UserError
from common.runs.setup import Setup, make_setup
from common.settings.config import compose
from envs.make import make_world
from tests.conftest import TINY


def setup_of(*overrides: str) -> Setup:
    config = compose([*TINY, "env_kwargs.manipobj.num_cubes=3", *overrides])
    observation = make_observation(config.obs, make_world(config))
    width = observation.shape[-1]
    normaliser = Normaliser(torch.zeros(width), torch.ones(width))
    return make_setup(config, observation.world, observation, normaliser)


@pytest.mark.parametrize("kind", ["ec_state", "ec_state_gen", "state"])
def test_an_object_counts_when_its_position_differs_by_more_than_004(kind: str) -> None:
    counter = EntityCounter(setup_of(f"obs={kind}"))
    state = torch.zeros(21)  # six numbers of the arm, then xyz and yaw of each cube
    subgoal = state.clone()
    subgoal[0] = 1.0  # the arm is no object
    subgoal[6:9] = torch.tensor([0.03, 0.03, 0.0])  # a distance of 0.042
    subgoal[11] = 0.039
    subgoal[19] = 1.0  # turned, not moved
    assert counter(state, subgoal) == 1.0
    subgoal[18] = -0.041
    assert counter(state, subgoal) == 2.0


@pytest.mark.parametrize(
    "overrides",
    [
        ["agent=iql"],
        ["sgiql.disable_subgoal=true"],
        ["agent=hiql", "obs=state", "hiql.num_subgoals=0"],
    ],
)
def test_agents_that_pursue_no_subgoals_are_refused(overrides: list[str]) -> None:
    with pytest.raises(UserError, match="subgoal_factor_eval=true needs an agent that pursues"):
        EntityCounter(setup_of(*overrides))


def test_observations_without_positions_are_refused() -> None:
    setup = setup_of()
    setup.observation.pixels = True
    with pytest.raises(UserError, match="needs positions of objects, which images do not tell"):
        EntityCounter(setup)


def test_what_the_settings_ask_for_is_watched() -> None:
    assert watching(compose(TINY), setup_of()) == {"counter": None, "tell": None}
    setup = setup_of("sgiql.debug_subgoals=true")
    asked = watching(compose([*TINY, "subgoal_factor_eval=true"]), setup)
    assert isinstance(asked["counter"], EntityCounter) and callable(asked["tell"])
