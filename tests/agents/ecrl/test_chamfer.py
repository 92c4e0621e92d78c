"""Rewards of particles: the reference's vectors, and what they say by hand."""

import pytest
import torch

from agents.ecrl.chamfer import ChamferReward, Objects, density_aware, plain
from agents.observations.spec import ObservationSpec
from tests.helpers.ecrl import golden, td3_settings

OURS = [0, 1, 2, 3, 4, 9, 5, 6, 7, 8]  # the reference has the transparency last
CASES = ["matched1", "unmatched1", "matched2", "unmatched2", "classified2", "none_kept"]
KINDS = {"chamfer": "gdac", "plain_chamfer": "plain"}


def reward(case: dict, kind: str, **changes) -> torch.Tensor:
    """Of a case of the golden vectors; what is kept there stands for a classifier."""
    spec = ObservationSpec("entities", (1, 10), case["state"].shape[1], 6)
    settings = td3_settings(reward=kind, chamfer_threshold=6.0, **changes)
    state, goal = (case[name][..., OURS].flatten(1, 2) for name in ("state", "goal"))
    kept = iter([case["keep_state"], case["keep_goal"]] if "keep_state" in case else [])
    objects = (lambda _: next(kept)) if "keep_state" in case else None
    return ChamferReward(settings, spec, objects)(state, goal)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_rewards_are_the_references(name: str, kind: str) -> None:
    case = golden(f"chamfer/{name}")
    expected = case[KINDS[kind]]
    assert torch.allclose(reward(case, kind), expected, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("name", CASES)
def test_one_way_of_one_goal_particle_is_the_references(name: str) -> None:
    """-2 times the mean over views, as its SMORL has it."""
    case = golden(f"chamfer/{name}")
    everything = torch.ones_like(case["state"][..., 0], dtype=torch.bool)
    kept = [case.get(f"keep_{side}", everything) for side in ("goal", "state")]
    goal, state = (
        Objects(x[..., :2], x[..., 5:9], own)
        for x, own in zip((case["goal"], case["state"]), kept, strict=True)
    )
    first = Objects(*(part[:, :, :1] for part in goal))
    found = -2 * plain(first, state, 6.0).mean(dim=1)
    assert torch.allclose(found, case["single_goal"], rtol=3e-6, atol=3e-6)


def test_many_particles_of_an_object_count_once_and_all_lost_ones_as_one() -> None:
    """Two particles of one object 0.1 and 0.3 away, two that look like nothing."""
    place = torch.tensor([[0.1, 0.0], [0.0, 0.3], [0.9, 0.9], [0.8, 0.8]])
    looks = torch.tensor([[0.0], [0.1], [9.0], [8.0]])
    source = Objects(place[None, None], looks[None, None], torch.ones(1, 1, 4, dtype=torch.bool))
    target = Objects(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 1), source.kept[..., :1])
    assert density_aware(source, target, 6.0).item() == pytest.approx((0.2 + 1) / 2)
    assert density_aware(source, target, 6.0, 3.0).item() == pytest.approx((0.2 + 3) / 2)
    assert plain(source, target, 6.0).item() == pytest.approx((0.1 + 0.3 + 1 + 1) / 4)
    assert density_aware(target, source, 6.0).item() == pytest.approx(0.1)


def test_an_unmatched_object_may_cost_more_than_published() -> None:
    case = golden("chamfer/unmatched2")
    dear, published = (reward(case, "chamfer", chamfer_unmatched=c) for c in (4.0, 1.0))
    assert (dear < published).all()


def test_without_a_classifier_all_particles_are_objects() -> None:
    case = golden("chamfer/classified2")
    seen = {name: case[name] for name in ("state", "goal")}
    assert not torch.allclose(reward(seen, "chamfer"), case["gdac"], atol=1e-3)
    everything = torch.ones(6, 2, 24, dtype=torch.bool)
    kept = seen | {"keep_state": everything, "keep_goal": everything}
    assert torch.equal(reward(seen, "chamfer"), reward(kept, "chamfer"))
