"""When latencies have settled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from folio_client.warm_up import is_settled, p95


def test_p95_is_the_value_that_19_of_20_do_not_exceed() -> None:
    assert p95([*range(1, 21)]) == 19
    assert p95([7]) == 7


def test_settled_is_what_two_windows_agree_on() -> None:
    assert not is_settled([1.0] * 49)
    assert is_settled([1.0] * 50)
    assert is_settled([9.0, *[1.0] * 50])
    assert not is_settled([2.0] * 25 + [1.0] * 25)
    assert is_settled([1.0] * 25 + [1.09] * 25)


@given(st.lists(st.floats(min_value=0.001, max_value=10), max_size=120))
def test_only_the_last_two_windows_count(latencies_s: list[float]) -> None:
    assert is_settled([5.0] * 50 + latencies_s) == is_settled(([5.0] * 50 + latencies_s)[-50:])
