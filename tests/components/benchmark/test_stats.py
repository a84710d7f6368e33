"""The statistics of the benchmark, against their definitions and on made-up machines with known noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.benchmark import stats

latencies = st.lists(st.floats(0.01, 1e5), min_size=1, max_size=60)
rounds = st.lists(st.floats(0.1, 1e3), min_size=3, max_size=30)


@given(latencies)
def test_percentiles_are_ordered_and_within_the_calls(values):
    found = stats.percentiles(values)
    assert min(values) <= found.p50 <= found.p90 <= found.p99 <= max(values)


@given(latencies, st.floats(0.1, 10))
def test_percentiles_scale_with_the_unit(values, factor):
    one, other = stats.percentiles(values), stats.percentiles(np.array(values) * factor)
    assert other.p99 == pytest.approx(one.p99 * factor)


def test_percentiles_of_a_known_sample():
    found = stats.percentiles(list(range(101)))
    assert (found.p50, found.p90, found.p99) == (50, 90, 99)


def test_no_calls_and_no_rounds_are_refused():
    with pytest.raises(ValueError, match="no calls"):
        stats.percentiles([])
    with pytest.raises(ValueError, match="no rounds"):
        stats.median_with_interval([], 1)
    with pytest.raises(ValueError, match="do not pair"):
        stats.paired_ratios([1, 2], [1])


@settings(max_examples=40, deadline=None)
@given(rounds, st.integers(0, 2**32 - 1))
def test_the_interval_holds_the_ratio_and_stays_within_the_rounds(ratios, seed):
    found = stats.median_with_interval(ratios, seed)
    assert min(ratios) <= found.ci_low <= found.ratio <= found.ci_high <= max(ratios)
    assert found == stats.median_with_interval(ratios, seed)


@settings(max_examples=25, deadline=None)
@given(rounds)
def test_swapping_baseline_and_candidate_inverts_the_ratio_of_an_odd_number_of_rounds(medians):
    medians = medians if len(medians) % 2 else medians[:-1]
    other = list(reversed(medians))
    forth = stats.median_with_interval(stats.paired_ratios(medians, other), 1)
    back = stats.median_with_interval(stats.paired_ratios(other, medians), 1)
    assert forth.ratio == pytest.approx(1 / back.ratio)


def test_equal_rounds_give_an_interval_of_no_width():
    found = stats.median_with_interval([2.0] * 12, 7)
    assert (found.ci_low, found.ratio, found.ci_high) == (2, 2, 2)
    assert stats.rounds_agree([2.0] * 12, found)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(11)
    covered = 0
    for trial in range(300):
        ratios = 2.0 * np.exp(generator.normal(0, 0.05, 12))
        found = stats.median_with_interval(ratios, trial)
        covered += found.ci_low <= 2.0 <= found.ci_high
    assert 0.90 <= covered / 300 <= 0.99


def test_drift_of_the_machine_cancels_in_pairs():
    # The machine slows down to half its speed over the run; the candidate stays exactly twice as fast.
    drift = np.linspace(1, 2, 12)
    found = stats.median_with_interval(stats.paired_ratios(100 * drift, 50 * drift), 3)
    assert (found.ci_low, found.ci_high) == (pytest.approx(2), pytest.approx(2))


def test_one_disturbed_round_neither_moves_the_ratio_nor_counts_as_disagreement():
    ratios = [2.0, 2.01, 1.99, 2.0, 2.02, 1.98, 2.0, 2.01, 1.99, 2.0, 2.0, 9.0]
    found = stats.median_with_interval(ratios, 5)
    assert found.ratio == pytest.approx(2, abs=0.01)
    assert stats.rounds_agree(ratios, found)


def test_scattered_rounds_disagree():
    ratios = [1.0, 3.0] * 6
    assert not stats.rounds_agree(ratios, stats.median_with_interval(ratios, 5))


def test_a_round_is_compared_with_the_one_before():
    assert stats.self_ratios([1, 2, 8]).tolist() == [8, 0.5, 0.25]


def test_the_baseline_against_itself_is_about_one():
    medians = 100 + np.random.default_rng(2).normal(0, 1, 12)
    found = stats.median_with_interval(stats.self_ratios(medians), 5)
    assert found.ci_low <= 1 <= found.ci_high
    assert np.prod(stats.self_ratios(medians)) == pytest.approx(1)


@given(st.lists(st.floats(0.5, 2), min_size=1, max_size=40), st.floats(0.01, 100))
def test_spread_has_no_unit(values, factor):
    assert stats.spread(np.array(values) * factor) == pytest.approx(stats.spread(values), abs=1e-9)


def test_spread_of_normal_noise_is_its_standard_deviation():
    values = np.random.default_rng(4).normal(100, 5, 20_000)
    assert stats.spread(values) == pytest.approx(0.05, rel=0.05)
    assert stats.spread([0, 0, 0]) == 0
    assert stats.spread([0, 0, 1]) == float("inf")


def test_round_medians():
    assert stats.round_medians([[1, 2, 9], [4, 4]]).tolist() == [2, 4]
