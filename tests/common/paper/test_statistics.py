"""Intervals against computations by hand."""

import math

import numpy as np
import pytest

from common.evaluation.intervals import average, proportion
from common.paper.statistics import improvement, spread


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The textbook formula."""
    z, p = 1.959963984540054, successes / count
    centre = p + z**2 / (2 * count)
    spread = z * math.sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    return (centre - spread) / (1 + z**2 / count), (centre + spread) / (1 + z**2 / count)


@pytest.mark.parametrize(("successes", "count"), [(0, 50), (1, 1), (17, 50), (50, 50), (80, 100)])
def test_proportion_is_the_wilson_interval(successes, count):
    interval = proportion([1.0] * successes + [0.0] * (count - successes))
    low, high = wilson(successes, count)
    assert interval.mean == successes / count
    assert interval.low == pytest.approx(low, abs=1e-12)
    assert interval.high == pytest.approx(high, abs=1e-12)
    assert interval.count == count


def test_average_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    intervals = [average(rng.normal(3.0, 2.0, 100)) for _ in range(60)]
    covered = np.mean([interval.low <= 3.0 <= interval.high for interval in intervals])
    assert covered >= 0.85
    widths = [interval.high - interval.low for interval in intervals]
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 2.0 / 10, rel=0.1)  # 2 z sigma / sqrt(n)


def test_average_is_reproducible_and_keeps_to_the_range_of_the_data():
    values = [0.0, 0.0, 0.5, 1.0]
    assert average(values) == average(values)
    assert 0.0 <= average(values).low <= average(values).mean <= average(values).high <= 1.0


def test_constant_and_single_values_give_a_point():
    for values in ([2.5], [2.5] * 10):
        interval = average(values)
        assert (interval.low, interval.mean, interval.high) == (2.5, 2.5, 2.5)


def test_bad_values_are_refused():
    for values in ([], [math.nan], [1.0, math.inf]):
        with pytest.raises(ValueError, match="finite"):
            average(values)
    with pytest.raises(ValueError, match="0 or 1"):
        proportion([0.0, 0.5])


def test_spread_of_runs():
    of_one = spread([[0.2, 0.4, 0.6, 0.8]])
    assert (of_one.runs, of_one.mean) == (4, pytest.approx(0.5))
    assert of_one.sd == pytest.approx(math.sqrt(0.2 / 3))
    assert of_one.iqm == pytest.approx(0.5)  # the two in the middle
    assert spread([[0.0, 0.5, 0.5, 1.0, 0.5, 0.5, 0.5, 0.5]]).iqm == 0.5  # outliers do not count
    alone = spread([[0.3]])
    assert alone.mean == alone.iqm == 0.3
    assert math.isnan(alone.sd) and math.isnan(alone.low) and math.isnan(alone.high)


def test_runs_are_drawn_anew_within_each_experiment_only():
    easy, hard = [0.9, 0.9, 0.9], [0.1, 0.1, 0.1]
    stratified, mixed = spread([easy, hard]), spread([easy + hard])
    assert stratified.low == stratified.high == pytest.approx(0.5)
    assert mixed.low < 0.2 and mixed.high > 0.8
    one_run_stays = spread([[0.9], [0.1, 0.3]])
    assert (one_run_stays.low, one_run_stays.high) == pytest.approx((1.1 / 3, 1.5 / 3))


def test_interval_of_two_runs_is_that_of_their_three_resamples():
    figures = spread([[0.2, 0.8]])
    assert (figures.low, figures.high) == pytest.approx((0.2, 0.8))


def test_probability_of_improvement_counts_pairs_and_halves_ties():
    value, low, high = improvement([[0.5, 0.7]], [[0.5, 0.6, 0.8]])
    assert value == pytest.approx((0.5 + 2) / 6)
    assert 0 <= low <= value <= high <= 1
    assert improvement([[0.9, 0.8]], [[0.1, 0.2]])[:2] == (1.0, 1.0)
    over_both, *_ = improvement([[0.9], [0.1]], [[0.5], [0.5]])
    assert over_both == 0.5  # experiments count alike
    with pytest.raises(ValueError, match="1 experiments cannot be compared with 2"):
        improvement([[0.1]], [[0.1], [0.2]])
