"""Distance of two unordered particle sets (spec: agents 2).

Letters: B batch, V views, N particles of all views, n = N/V of one view, D features.
"""

import torch.nn.functional as F
from torch import Tensor


def l1(x: Tensor, y: Tensor) -> Tensor:
    """Sum of absolute differences: (..., D), (..., D) -> (...)."""
    return (x - y).abs().sum(dim=-1)


def l2(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distance; the small number keeps the gradient finite where both are equal."""
    return (l2_simple(x, y) + 1e-12).sqrt()


def l2_simple(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distance."""
    return (x - y).square().sum(dim=-1)


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """One minus the cosine of the angle."""
    return 1 - F.cosine_similarity(x, y, dim=-1)


METRICS = {"l1": l1, "l2_simple": l2_simple, "l2": l2, "cosine": cosine}


def chamfer(
    predicted: Tensor, target: Tensor, *, metric: str, target_weight: float, views: int = 1
) -> Tensor:
    """Mean over all particles of (w d1 + d2) / (w + 1), view by view: (B, N, D) twice -> (B,).

    d1: from each target particle to the nearest predicted one; d2: from each predicted particle to
    the nearest target one; w = `target_weight`.
    """
    x, y = (particles.unflatten(1, (views, -1)) for particles in (predicted, target))
    distance = METRICS[metric](x.unsqueeze(3), y.unsqueeze(2))  # (B, V, n predicted, n target)
    d1, d2 = distance.amin(dim=2), distance.amin(dim=3)
    return ((target_weight * d1 + d2) / (target_weight + 1)).mean(dim=(1, 2))
