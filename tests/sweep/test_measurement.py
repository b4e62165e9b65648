"""Figures of requests whose times were written by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio_sweep.errors import LevelFailed
from folio_sweep.measurement import Percentiles, measure
from folio_sweep.profile_export import Request, Response

MS = 1_000_000


def response(time_ms: float, num_tokens: int = 1, length: int | None = None) -> Response:
    return Response(int(time_ms * MS), num_tokens, None, None, length)


def request(sent_ms: float, *responses: Response, position: int | None = None) -> Request:
    return Request(int(sent_ms * MS), None, position, responses)


def test_first_token_and_gaps_count_tokens_alone() -> None:
    measured = measure([request(100, response(150), response(160), response(190), response(500, num_tokens=0))])
    assert measured.first_token.p50_ms == 50
    assert measured.latency.p99_ms == 90
    assert measured.inter_token == Percentiles(10, 30, 30)
    assert measured.num_answers == 3
    assert measured.duration_s == pytest.approx(0.09)


def test_tokens_of_one_response_share_its_gap() -> None:
    measured = measure([request(0, response(10), response(40, num_tokens=3))])
    assert measured.inter_token == Percentiles(10, 10, 10)
    assert measured.num_answers == 4


def test_an_empty_response_between_tokens_does_not_cut_a_gap() -> None:
    measured = measure([request(0, response(10), response(20, num_tokens=0), response(30))])
    assert measured.inter_token == Percentiles(20, 20, 20)


def test_latencies_on_a_schedule_count_from_the_intended_start() -> None:
    # 10 a second: the second request goes out 40 ms late, and its answer takes 5 ms from there.
    requests = [request(1000, response(1005)), request(1140, response(1145)), request(1200, response(1205))]
    measured = measure(requests, request_rate=10)
    assert measured.first_token == Percentiles(5, 45, 45)
    assert measured.send_lag == Percentiles(0, 40, 40)
    assert measure(requests).first_token.p99_ms == 5
    assert measure(requests).send_lag is None


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.sampled_from([1.0, 10.0, 300.0]))
def test_no_request_starts_ahead_of_its_schedule(delays_ms: list[int], rate: float) -> None:
    sent = [1000 * index / rate + delay for index, delay in enumerate(delays_ms)]
    measured = measure([request(time, response(time + 5)) for time in sorted(sent)], rate)
    assert measured.send_lag is not None
    assert measured.send_lag.p50_ms >= -1e-3
    assert measured.first_token.p50_ms >= 5 - 1e-3


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentiles_are_ordered_values_that_were_measured(values: list[float]) -> None:
    percentiles = Percentiles.of(values)
    assert percentiles is not None
    assert min(values) <= percentiles.p50_ms <= percentiles.p95_ms <= percentiles.p99_ms <= max(values)
    assert {percentiles.p50_ms, percentiles.p95_ms, percentiles.p99_ms} <= set(values)


def test_requests_without_a_token_fail_the_level() -> None:
    with pytest.raises(LevelFailed, match="1 of 2 requests"):
        measure([request(0, response(5)), request(0, response(5, num_tokens=0))])
    with pytest.raises(LevelFailed, match="no requests"):
        measure([])


def test_a_step_that_leaves_a_wrong_length_fails_the_level() -> None:
    measure([request(0, response(5, length=9), position=8)])
    with pytest.raises(LevelFailed, match="wrong length"):
        measure([request(0, response(5, length=8), position=8)])
