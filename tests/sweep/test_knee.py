"""The knee of curves with a known one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from folio_sweep.knee import Knee, find_knee

POSITIVE = st.floats(0.1, 1e4)


def test_the_knee_is_where_more_load_begins_to_cost_more_than_it_brings() -> None:
    # Up to the third level throughput doubles at nearly equal latency, then latency doubles instead.
    assert find_knee([10, 20, 40, 42, 43], [1.0, 1.1, 1.3, 2.6, 5.2]) == Knee(2, is_reached=True)


def test_a_knee_at_the_highest_level_is_not_called_reached() -> None:
    assert find_knee([10, 20, 40], [1, 1, 1]) == Knee(2, is_reached=False)


def test_of_equal_levels_the_lowest_is_the_knee() -> None:
    assert find_knee([10, 20, 40], [1, 2, 4]) == Knee(0, is_reached=True)


def test_two_levels_have_no_knee() -> None:
    assert find_knee([10, 20], [1, 1]) is None


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=3, max_size=9), st.sampled_from([0.5, 2.0, 1024.0]))
def test_units_do_not_move_the_knee(levels: list[tuple[float, float]], factor: float) -> None:
    throughputs, latencies = zip(*levels, strict=True)
    knee = find_knee(throughputs, latencies)
    assert knee == find_knee([factor * value for value in throughputs], latencies)
    assert knee == find_knee(throughputs, [factor * value for value in latencies])
