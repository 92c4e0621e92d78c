"""Advantage-weighted regression of subgoals (Peng et al. 2019; for subgoals Park et al. 2023)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from agents.base import AgentContext, Metrics
from common.settings.schema import setting

MAX_WEIGHT = 100.0
METRICS = {  # distances of particles: (..., D), (..., D) -> (...)
    "l1": lambda x, y: (x - y).abs().sum(dim=-1),
    "l2_simple": lambda x, y: (x - y).square().sum(dim=-1),
    # The small number keeps the gradient finite where both are equal.
    "l2": lambda x, y: ((x - y).square().sum(dim=-1) + 1e-12).sqrt(),
    "cosine": lambda x, y: 1 - F.cosine_similarity(x, y, dim=-1),
}


@dataclass(frozen=True)
class AWRSettings:
    """Keys of an agent's section that weigh and measure the regression of its subgoals."""

    beta: float = setting(low=0.0)
    chamfer_metric: str = setting(choices=tuple(METRICS))
    chamfer_target_weight: float = setting(low=0.0)
    awr_broadcast_weights: bool = setting()


def awr_loss(
    predicted: Tensor,
    target: Tensor,
    advantage: Tensor,
    settings: AWRSettings,
    context: AgentContext,
) -> tuple[Tensor, Metrics]:
    """L = E[ min(exp(beta A), 100) e ], one weight per sample.

    Args:
        predicted, target: (B, *shape). advantage: A (B,), without gradient.

    The error e is the mean square over all features; of particles, which have no order, the Chamfer
    distance, and their weights are divided by 100.
    """
    spec = context.spec
    weight = torch.exp(settings.beta * advantage).clamp(max=MAX_WEIGHT)
    if spec.ordered:
        error = (predicted - target).square().flatten(1).mean(dim=1)
        if settings.awr_broadcast_weights:
            # The reference multiplies weights (B, 1) with errors (B,): every error gets every
            # weight, so that all weigh the same. HIQL and AWR were published like that.
            weight = context.batch_mean(weight).expand_as(error)
    else:
        weight = weight / MAX_WEIGHT
        how = {"metric": settings.chamfer_metric, "target_weight": settings.chamfer_target_weight}
        error = chamfer(predicted, target, **how, views=spec.views)
    loss = (weight * error).mean()
    return loss, {
        "subgoal/loss": loss,
        "subgoal/error": error.mean(),
        "subgoal/advantage": advantage.mean(),
        "subgoal/weight": weight.mean(),
    }


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
