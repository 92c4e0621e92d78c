"""Advantage-weighted regression of subgoals.

Peng et al. 2019, for subgoals Park et al. 2023; spec: agents 2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.base import AgentContext, Metrics
from agents.chamfer import METRICS, chamfer
from common.settings import setting

MAX_WEIGHT = 100.0


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
        error = chamfer(
            predicted,
            target,
            metric=settings.chamfer_metric,
            target_weight=settings.chamfer_target_weight,
            views=spec.views,
        )
    loss = (weight * error).mean()
    return loss, {
        "subgoal/loss": loss,
        "subgoal/error": error.mean(),
        "subgoal/advantage": advantage.mean(),
        "subgoal/weight": weight.mean(),
    }
