"""Settings of agents that act while they learn: the section `online`."""

import math
from dataclasses import dataclass

from common.settings.schema import SettingError, setting


@dataclass(frozen=True)
class Schedule:
    """Cycles of acting, and the updates that follow each.

    Attributes:
        warmup: cycles before the one that the first update waits for.
        cycle: environment steps of a cycle. updates: after each cycle.
    """

    warmup: int
    cycle: int
    updates: int

    def cycles(self, update: int) -> int:
        """Cycles that are played before `update`, counted from 1."""
        return self.warmup + math.ceil(update / self.updates)


@dataclass(frozen=True)
class OnlineSettings:
    """Amounts of acting before and between updates; `config.yaml` says what each is."""

    envs_per_cycle: int = setting(low=1)
    max_episode_steps: int | None = setting(low=2)
    steps_per_cycle: int | None = setting(low=1)
    updates_per_step: float = setting(above=0)
    warmup_episodes: int = setting(low=0)
    replay_transitions: int = setting(low=1)
    overlap: bool = setting()

    def schedule(self, episode_steps: int) -> Schedule:
        """Cycles in a world whose episodes have at most so many steps.

        Raises `SettingError` if a cycle gives no update.
        """
        cycle = self.steps_per_cycle or self.envs_per_cycle * episode_steps
        updates = int(cycle * self.updates_per_step)
        if not updates:
            raise SettingError(
                f"online.updates_per_step={self.updates_per_step:g} gives no update for the "
                f"{cycle} environment steps of a cycle; allowed: at least {1 / cycle:.2g}"
            )
        return Schedule(math.ceil(self.warmup_episodes * episode_steps / cycle), cycle, updates)
