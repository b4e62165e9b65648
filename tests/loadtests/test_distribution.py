"""Percentiles are values that were measured, and counting in bins changes them by no more than a bin."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from folio_loadtests.distribution import Counts, Distribution, percentile

DURATIONS = st.lists(st.floats(0, 100), min_size=1, max_size=200)
SHARE = st.floats(0.01, 1)


@given(values=DURATIONS, share=SHARE)
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: list[float], share: float) -> None:
    found = percentile(sorted(values), share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


@given(values=DURATIONS, share=SHARE)
def test_counts_are_at_most_a_bin_too_high(values: list[float], share: float) -> None:
    counts = Counts()
    for value in values:
        counts.add(value)
    exact = percentile(sorted(values), share)
    assert exact - 1e-9 <= counts.percentile(share) <= exact + Counts.RESOLUTION_S + 1e-9


@given(first=DURATIONS, second=DURATIONS, share=SHARE)
def test_counts_of_two_processes_are_as_those_of_one(first: list[float], second: list[float], share: float) -> None:
    alone, one, other = Counts(), Counts(), Counts()
    for value in first:
        one.add(value)
        alone.add(value)
    for value in second:
        other.add(value)
        alone.add(value)
    one.merge(Counts(other.take()))
    assert len(other) == 0
    assert one.percentile(share) == alone.percentile(share)


def test_nothing_has_no_percentiles() -> None:
    nothing = Distribution.of([None, None])
    assert nothing.num_values == 0
    assert math.isnan(nothing.p95)
    assert math.isnan(Counts().percentile(0.99))
