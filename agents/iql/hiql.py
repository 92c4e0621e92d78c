"""HIQL (Park et al. 2023), with the critics and the DDPG+BC policy of `agents.iql.iql`."""

from dataclasses import dataclass

from torch import Tensor

from agents.iql.hierarchy import Hierarchy, HierarchySettings
from common.data.batches import Batch


@dataclass(frozen=True)
class HIQLSettings(HierarchySettings):
    """Section `hiql`."""


class HIQL(Hierarchy):
    """V, two critics, a policy that knows near goals only, and a subgoal policy that predicts them.

    Its losses are those of `IQL` and `Hierarchy`.
    """

    Settings = HIQLSettings
    name = "hiql"

    def policy_goal(self, batch: Batch) -> Tensor:
        """The states k steps on, since the policy acts on subgoals only."""
        return batch.policy_subgoal
