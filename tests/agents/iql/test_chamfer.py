"""The Chamfer distance against its definition, particle by particle."""

import math

import pytest
import torch

from agents.iql.awr import METRICS, chamfer

BY_HAND = {
    "l1": lambda x, y: (x - y).abs().sum().item(),
    "l2_simple": lambda x, y: ((x - y) ** 2).sum().item(),
    "l2": lambda x, y: math.dist(x, y),
    "cosine": lambda x, y: 1 - (x @ y / (x.norm() * y.norm())).item(),
}


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("metric", METRICS)
def test_each_particle_looks_for_the_nearest_one_of_its_view(metric: str, views: int) -> None:
    torch.manual_seed(0)
    predicted, target = torch.randn(2, 6, 3), torch.randn(2, 6, 3)
    weight, size, distance = 2.0, 6 // views, BY_HAND[metric]
    for row in range(2):
        expected = 0.0
        for view in range(views):
            xs, ys = (p[row, view * size : (view + 1) * size] for p in (predicted, target))
            expected += weight * sum(min(distance(x, y) for x in xs) for y in ys)
            expected += sum(min(distance(x, y) for y in ys) for x in xs)
        expected /= 6 * (weight + 1)
        got = chamfer(predicted, target, metric=metric, target_weight=weight, views=views)
        assert math.isclose(got[row].item(), expected, rel_tol=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_the_order_of_particles_does_not_matter(metric: str) -> None:
    torch.manual_seed(0)
    predicted, target = torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    options = {"metric": metric, "target_weight": 1.0}
    shuffled = chamfer(predicted[:, torch.randperm(5)], target[:, torch.randperm(5)], **options)
    assert torch.allclose(shuffled, chamfer(predicted, target, **options), atol=1e-6)
    assert chamfer(target[:, torch.randperm(5)], target, **options).max() < 1e-5


@pytest.mark.parametrize("metric", METRICS)
def test_gradients_are_finite_even_where_the_sets_agree(metric: str) -> None:
    target = torch.ones(1, 2, 3)
    predicted = target.clone().requires_grad_()
    chamfer(predicted, target, metric=metric, target_weight=1.0).sum().backward()
    assert torch.isfinite(predicted.grad).all()
