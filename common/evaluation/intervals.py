"""Means of episodes and of runs, with 95 % intervals."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 0  # of the bootstrap: the same rows always give the same interval


@dataclass(frozen=True)
class Interval:
    """A mean over `count` episodes with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float
    count: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def proportion(successes: Sequence[float]) -> Interval:
    """Share of ones among zeros and ones (E,), with the Wilson score interval.

    Unlike the normal approximation it stays inside [0, 1] and is not empty at 0 or E successes.
    """
    values = checked(successes)
    if not np.isin(values, (0.0, 1.0)).all():
        raise ValueError("a proportion needs values that are 0 or 1")
    count = int(values.sum())
    bounds = stats.binomtest(count, len(values)).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(count / len(values), float(bounds.low), float(bounds.high), len(values))


def average(values: Sequence[float]) -> Interval:
    """Mean of any values (E,), with the percentile bootstrap interval over episodes.

    With one value the interval is that value: there is nothing to resample.
    """
    values = checked(values)
    mean = float(values.mean())
    if len(values) == 1:
        return Interval(mean, mean, mean, 1)
    low, high = bootstrap((values,), np.mean)
    return Interval(mean, float(low), float(high), len(values))


def bootstrap(samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray]) -> Any:
    """The percentile bootstrap's 95 % interval of a statistic, which has `low` and `high`."""
    return stats.bootstrap(
        samples,
        statistic,
        vectorized=True,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval


def checked(values: Sequence[float]) -> np.ndarray:
    """The values as an array (N,); raises `ValueError` unless all are finite and N >= 1."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"expected a non-empty list of finite numbers, got {values!r}")
    return array
