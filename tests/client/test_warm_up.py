"""When latencies have settled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio_client import GenerateResult, Usage
from folio_client.warm_up import WarmUp, is_settled, p95


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


@pytest.mark.parametrize(
    ("latencies_s", "num_sent", "is_settled_then"),
    [([1.0] * 200, 52, True), ([2.0**index for index in range(200)], 90, False)],
)
def test_it_ends_when_settled_or_when_there_were_enough(
    latencies_s: list[float], num_sent: int, is_settled_then: bool
) -> None:
    warming, left = WarmUp(90, 4, "Once"), iter(latencies_s)
    sizes = []
    while prompts := warming.next_prompts():
        sizes.append(len(prompts))
        warming.add([GenerateResult((), Usage(total_s=next(left)), "r") for _ in prompts])
    assert (sum(sizes), max(sizes)) == (num_sent, 4)
    assert (warming.result.num_requests, warming.result.is_settled) == (num_sent, is_settled_then)
