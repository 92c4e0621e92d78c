"""Statistics over runs and experiments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from common.evaluation.intervals import bootstrap, checked


@dataclass(frozen=True)
class Spread:
    """Scores of several training runs of one method.

    Attributes:
        runs: how many there are.
        mean, sd: over all runs; sd (with R - 1) is NaN for a single run.
        iqm: interquartile mean, of the middle half of all runs; `low`, `high` the ends of its 95 %
            interval, NaN where no experiment has two runs.
    """

    runs: int
    mean: float
    sd: float
    iqm: float
    low: float
    high: float


def spread(experiments: Sequence[Sequence[float]]) -> Spread:
    """Summarise the scores of a method's runs, a sequence (R,) for each experiment.

    The interval is the stratified bootstrap's (Agarwal et al. 2021): runs are drawn anew within
    each experiment, so it speaks of other training seeds and not of other experiments. With few
    runs it is as wide as they differ, which is less than the truth: three runs have ten resamples.
    """
    strata = [checked(scores) for scores in experiments]
    scores = np.concatenate(strata)
    sd = float(scores.std(ddof=1)) if len(scores) > 1 else np.nan
    low, high = _stratified_interval(strata, _interquartile_mean)
    return Spread(
        len(scores), float(scores.mean()), sd, float(_interquartile_mean(scores)), low, high
    )


def improvement(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]
) -> tuple[float, float, float]:
    """Probability that a run of one method beats a run of another, with its 95 % interval.

    Both are runs' scores (R,) of the same experiments, in the same order; a tie counts one half,
    and experiments count alike (Agarwal et al. 2021). The interval is that of `spread`.
    """
    strata = [checked(scores) for scores in (*ours, *theirs)]
    count = len(ours)
    if count != len(theirs):
        raise ValueError(f"{count} experiments cannot be compared with {len(theirs)}")

    def probability(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        pairs = zip(samples[:count], samples[count:], strict=True)
        return np.mean([_win_share(a, b) for a, b in pairs], axis=0)

    return float(probability(*strata)), *_stratified_interval(strata, probability)


def _interquartile_mean(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
    return stats.trim_mean(np.concatenate(samples, axis=-1), 0.25, axis=-1)


def _win_share(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Share of the pairs of (..., R) and (..., S) that ours wins."""
    difference = ours[..., :, None] - theirs[..., None, :]
    return ((np.sign(difference) + 1) / 2).mean(axis=(-2, -1))


def _stratified_interval(
    strata: Sequence[np.ndarray], statistic: Callable[..., np.ndarray]
) -> tuple[float, float]:
    """Ends of the percentile bootstrap's interval, each sample drawn anew apart.

    NaN if no sample has two values; a sample with one value stays as it is.
    """
    drawn = [sample for sample in strata if len(sample) > 1]
    if not drawn:
        return np.nan, np.nan

    def of_drawn(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        resampled = iter(samples)
        shape = samples[0].shape[:-1]
        return statistic(
            *(next(resampled) if len(s) > 1 else np.broadcast_to(s, (*shape, 1)) for s in strata)
        )

    interval = bootstrap(drawn, of_drawn)
    return float(interval.low), float(interval.high)
