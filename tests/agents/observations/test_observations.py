"""Observations: encoding and its inverse, identities of entities, normalisation."""

import itertools
import math

import numpy as np
import pytest
import torch

from agents.observations.kinds import make_observation
from agents.observations.spec import ObservationSpec
from common.data.normaliser import CLIP, EPSILON, Normaliser
from common.foundation.errors import UserError
from common.foundation.registry import IMAGE_KINDS, OBSERVATIONS
from common.runs.loading import load_training_data
from common.settings import config as settings
from envs import make
from tests.helpers.manipobj_worlds import make_world

DRAWS = 20_000
SETS = ("ec_state", "ec_state_gen")
KINDS = (*SETS, "state")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("cubes", [1, 3, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_decoding_undoes_encoding(kind, cubes):
    world = make_world(num_cubes=cubes)
    observation = make_observation(kind, world)
    raw = torch.randn(7, world.state_dim, generator=generator())
    obs = observation.encode(raw, observation.identities(7, generator()))
    assert obs.shape == (7, *observation.shape)
    assert obs.dtype == torch.float32
    assert torch.equal(observation.decode(obs), raw)


def test_state_is_the_environments_vector_and_its_spec_says_flat():
    observation = make_observation("state", make_world(num_cubes=2))
    raw = torch.arange(32.0, dtype=torch.float64).view(2, 16)
    obs = observation.encode(raw, observation.identities(2, generator()))
    assert torch.equal(obs, raw.float())
    assert observation.spec == ObservationSpec("flat", (16,))


def test_the_spec_of_entity_sets_tells_their_rows_and_features():
    assert make_observation("ec_state", make_world(num_cubes=2)).spec == ObservationSpec(
        "entities", (3, 9)
    )


@pytest.mark.parametrize("kind", SETS)
def test_generated_rows_are_put_into_the_order_of_their_identities(kind):
    observation = make_observation(kind, make_world(num_cubes=3))
    raw = torch.randn(1, 21, generator=generator())
    identities = observation.identities(1, generator(4))
    (obs,) = observation.encode(raw, identities)
    blurred = obs + 0.2 * torch.randn(obs.shape, generator=generator(1))
    for order in itertools.permutations(range(4)):
        shuffled = blurred[list(order)]
        assert torch.equal(observation.align(shuffled, identities[0]), blurred)


def test_rows_that_claim_the_same_identity_still_get_one_each():
    observation = make_observation("ec_state", make_world(num_cubes=1))
    obs = torch.zeros(2, 8)
    obs[:, 6:] = torch.tensor([[0.2, 0.9], [0.1, 0.3]])  # both look like the cube
    assert torch.equal(observation.align(obs, torch.tensor([0, 1])), obs.flip(0))


def test_an_entity_row_holds_its_state_and_the_one_hot_of_its_identity():
    world = make_world(num_cubes=2)
    observation = make_observation("ec_state_gen", world)
    raw = torch.arange(1.0, 17.0).unsqueeze(0)  # six numbers of the arm, five of each cube
    (obs,) = observation.encode(raw, torch.tensor([[0, 7, 3]]))
    assert obs[:, :6].tolist() == [
        [1, 2, 3, 4, 5, 6],
        [7, 8, 9, 10, 11, 0],
        [12, 13, 14, 15, 16, 0],
    ]
    assert torch.equal(obs[:, 6:], torch.eye(9)[[0, 7, 3]])


def test_ec_state_numbers_the_entities():
    observation = make_observation("ec_state", make_world(num_cubes=3))
    assert observation.shape == (4, 6 + 4)
    assert torch.equal(observation.identities(5, generator()), torch.arange(4).repeat(5, 1))


@pytest.mark.parametrize("cubes", [1, 3, 6])
def test_general_identities_are_the_agents_and_distinct_objects(cubes):
    observation = make_observation("ec_state_gen", make_world(num_cubes=cubes))
    assert observation.shape == (cubes + 1, 6 + 9)
    drawn = observation.identities(500, generator())
    assert drawn.shape == (500, cubes + 1)
    assert (drawn[:, 0] == 0).all()
    objects = drawn[:, 1:].sort(dim=1).values
    assert (objects.min(), objects.max()) == (1, 8)
    assert (objects.diff(dim=1) > 0).all()


def test_every_object_identity_is_equally_likely_in_every_row():
    observation = make_observation("ec_state_gen", make_world(num_cubes=3))
    drawn = observation.identities(DRAWS, generator())
    for row in (1, 2, 3):
        shares = torch.bincount(drawn[:, row], minlength=9)[1:] / DRAWS
        assert (shares - 1 / 8).abs().max() < 0.012  # five standard deviations


def test_every_order_of_the_identities_is_equally_likely():
    observation = make_observation("ec_state_gen", make_world(num_cubes=2))
    drawn = observation.identities(DRAWS, generator())
    shares = torch.bincount(drawn[:, 1] * 9 + drawn[:, 2], minlength=81) / DRAWS
    pairs = [9 * a + b for a, b in itertools.permutations(range(1, 9), 2)]
    assert (shares[pairs] - 1 / 56).abs().max() < 0.005
    assert shares[pairs].sum() == pytest.approx(1.0)


def test_identities_stay_the_same_over_a_training_episode(tiny_config):
    config = tiny_config()
    world = make.make_world(config)
    observation = make_observation(config.obs, world)
    device = torch.device("cpu")
    buffer, normaliser = load_training_data(config, world, observation, device)
    onehot = normaliser.inverse(buffer.obs)[..., -observation.identity_dim :]
    identities = onehot.argmax(dim=-1).split(buffer.episodes.length.tolist())
    assert all((episode == episode[0]).all() for episode in identities)
    assert all(len(set(episode[0].tolist())) == 2 for episode in identities)
    assert len({tuple(episode[0].tolist()) for episode in identities}) > 1


def test_identities_depend_on_the_generator_only():
    observation = make_observation("ec_state_gen", make_world(num_cubes=3))
    same = [observation.identities(50, generator(3)) for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], observation.identities(50, generator(4)))


def test_more_objects_than_in_training_have_rows_of_the_same_width():
    few, many = (make_observation("ec_state_gen", make_world(num_cubes=n)) for n in (3, 5))
    assert (few.shape[1], many.shape) == (15, (6, 15))
    normaliser = Normaliser.fit(_random_observations(few))
    raw = torch.randn(4, many.world.state_dim, generator=generator())
    obs = normaliser(many.encode(raw, many.identities(4, generator())))
    assert obs.shape == (4, 6, 15)


def _random_observations(observation, rows: int = 1000) -> torch.Tensor:
    raw = torch.randn(rows, observation.world.state_dim, generator=generator(1))
    return observation.encode(raw, observation.identities(rows, generator(2)))


@pytest.mark.parametrize("chunk", [1, 7, 99, 100, 1 << 16])
def test_the_normaliser_has_the_mean_and_variance_over_rows_and_entities(chunk):
    rng = np.random.default_rng(0)
    obs = (rng.standard_normal((100, 3, 4)) * [1, 10, 1e-3, 0] + [0, 5, 1000, 2]).astype(np.float32)
    fitted = Normaliser.fit(torch.from_numpy(obs), chunk=chunk)
    pooled = obs.reshape(-1, 4).astype(np.float64)
    np.testing.assert_allclose(fitted.mean, pooled.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(fitted.var, pooled.var(axis=0), rtol=1e-6)
    assert (fitted.mean.dtype, fitted.var.dtype) == (torch.float32, torch.float32)


def test_fitting_holds_one_chunk_in_double_precision(monkeypatch):
    largest = 0
    double = torch.Tensor.double

    def watching(x):
        nonlocal largest
        largest = max(largest, len(x))
        return double(x)

    monkeypatch.setattr(torch.Tensor, "double", watching)
    Normaliser.fit(torch.randn(1000, 2, 3), chunk=64)
    assert largest == 64


def test_normalising_scales_clips_and_can_be_undone():
    normaliser = Normaliser(torch.tensor([1.0, 0.0]), torch.tensor([4.0, 0.0]))
    scaled = normaliser(torch.tensor([[3.0, 0.001], [-50.0, 1.0], [50.0, -1.0]]))
    first = [2 / math.sqrt(4 + EPSILON), 0.001 / math.sqrt(EPSILON)]
    torch.testing.assert_close(scaled, torch.tensor([first, [-CLIP, CLIP], [CLIP, -CLIP]]))
    near = torch.tensor([[3.0, 0.001], [-2.0, -0.002]])
    torch.testing.assert_close(normaliser.inverse(normaliser(near)), near)


def test_the_settings_allow_the_kinds_that_there_are():
    assert set(settings.OBSERVATIONS) == set(OBSERVATIONS) > IMAGE_KINDS
    with pytest.raises(UserError, match=r"obs=ec_stat is not known; .*did you mean ec_state"):
        make_observation("ec_stat", make_world())
