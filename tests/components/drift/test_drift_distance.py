"""Distances between histograms, and what chance makes of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.drift.distance import by_chance, distance

HISTOGRAMS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 50), max_size=6)


def test_distances_by_hand() -> None:
    assert distance({"a": 3, "b": 1}, {"a": 6, "b": 2}) == 0
    assert distance({"a": 3, "b": 1}, {"a": 1, "b": 1}) == pytest.approx(0.25)
    assert distance({"a": 5}, {"b": 7}) == 1
    assert distance({}, {}) == 0
    assert distance({}, {"a": 1}) == 1


@given(HISTOGRAMS, HISTOGRAMS)
def test_it_is_a_distance(one: dict[str, int], other: dict[str, int]) -> None:
    found = distance(one, other)
    assert 0 <= found <= 1
    assert found == pytest.approx(distance(other, one))
    assert distance(one, one) == 0


def test_samples_of_one_population_stay_within_chance_and_others_do_not() -> None:
    draw = np.random.default_rng(0)
    even, skewed = [0.25] * 4, [0.55, 0.15, 0.15, 0.15]

    def sample(shares: list[float], size: int) -> dict[str, int]:
        return {str(place): int(count) for place, count in enumerate(draw.multinomial(size, shares))}

    pairs = [(sample(even, 40), sample(even, 60)) for _ in range(200)]
    beyond = [distance(*pair) > by_chance(*pair, seed=1) for pair in pairs]
    assert sum(beyond) <= 2  # one in a thousand is expected
    pairs = [(sample(even, 500), sample(skewed, 500)) for _ in range(50)]
    assert all(distance(*pair) > by_chance(*pair, seed=1) for pair in pairs)
    small, large = sample(even, 10), sample(even, 1000)
    assert by_chance(small, small, seed=1) > by_chance(large, large, seed=1)
