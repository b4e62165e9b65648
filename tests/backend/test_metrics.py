"""What is counted, and that nothing is lost or counted twice whatever the order of threads and readings."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio_backend import metric_definitions as definitions
from folio_backend.errors import ErrorCode
from folio_backend.metrics import EngineSnapshot, MetricsRecorder, Series
from folio_backend.request_timings import Outcome, RequestTimings

TIMINGS = RequestTimings(
    arrival_time_s=1.7e9,
    queue_s=0.5,
    prefill_s=0.5,
    decode_s=0.75,
    send_s=0.25,
    mean_inter_token_s=0.25,
    history_s=0.125,
    num_prompt_tokens=100,
    num_cached_tokens=64,
    num_generated_tokens=5,
    finish_reason="length",
)
SNAPSHOT = EngineSnapshot(
    num_running=3,
    num_waiting=4,
    num_pages={("raw", "free"): 10, ("sealed", "held"): 7},
    num_sessions=2,
    num_evictions={"capacity": 6},
    num_preemptions=1,
    num_recompilations=0,
    logical_bytes=4_000,
    stored_bytes=1_000,
    memory_usage_bytes=2_048,
    memory_limit_bytes=8_192,
    heartbeat_s=1_700_000_000.5,
)

seconds = st.none() | st.floats(0, 1e3)
timings_strategy = st.builds(
    lambda prefill_and_decode, **others: RequestTimings(
        prefill_s=prefill_and_decode[0], decode_s=prefill_and_decode[1], **others
    ),
    prefill_and_decode=st.sampled_from([(None, None), (0.5, None), (0.5, 0.25)]),
    arrival_time_s=st.just(1.7e9),
    queue_s=st.floats(0, 1e3),
    send_s=st.floats(0, 1e3),
    mean_inter_token_s=seconds,
    history_s=seconds,
    num_prompt_tokens=st.integers(50, 100),
    num_cached_tokens=st.integers(0, 50),
    num_generated_tokens=st.integers(0, 50),
    finish_reason=st.sampled_from(["stop", "length", "cancelled"]),
)


def test_a_request_is_counted_once() -> None:
    recorder = MetricsRecorder()
    recorder.observe_request(TIMINGS)
    readings = recorder.drain()
    assert readings.totals == {
        Series(definitions.PROMPT_TOKENS): 100,
        Series(definitions.CACHED_TOKENS): 64,
        Series(definitions.GENERATED_TOKENS): 5,
        Series(definitions.REQUESTS_FINISHED, ("length",)): 1,
        Series(definitions.CACHE_REQUESTS, ("hit",)): 1,
    }
    assert dict(readings.observations) == {
        Series(definitions.QUEUE_TIME): 0.5,
        Series(definitions.PREFILL_TIME): 0.5,
        Series(definitions.DECODE_TIME): 0.75,
        Series(definitions.SEND_TIME): 0.25,
        Series(definitions.TIME_TO_FIRST_TOKEN): 1.0,
        Series(definitions.INTER_TOKEN_TIME): 0.25,
        Series(definitions.END_TO_END_TIME): 2.0,
        Series(definitions.CACHE_LATENCY): 0.125,
        Series(definitions.REQUEST_PROMPT_TOKENS): 100,
        Series(definitions.REQUEST_GENERATED_TOKENS): 5,
        Series(definitions.REQUEST_CHOICES): 1,
    }
    assert recorder.drain().observations == ()
    assert recorder.drain().totals == readings.totals


def test_a_request_without_cached_tokens_is_a_miss() -> None:
    recorder = MetricsRecorder()
    recorder.observe_request(dataclasses.replace(TIMINGS, num_cached_tokens=0))
    totals = recorder.drain().totals
    assert totals[Series(definitions.CACHE_REQUESTS, ("miss",))] == 1
    assert Series(definitions.CACHE_REQUESTS, ("hit",)) not in totals


def test_a_request_that_never_ran_asks_nothing_of_the_cache() -> None:
    recorder = MetricsRecorder()
    waited = dataclasses.replace(
        TIMINGS,
        prefill_s=None,
        decode_s=None,
        mean_inter_token_s=None,
        history_s=None,
        num_cached_tokens=0,
        num_generated_tokens=0,
    )
    recorder.observe_request(waited)
    readings = recorder.drain()
    assert definitions.CACHE_REQUESTS not in {series.definition for series in readings.totals}
    observed = {series.definition for series, _ in readings.observations}
    assert definitions.QUEUE_TIME in observed
    assert observed.isdisjoint(
        {
            definitions.PREFILL_TIME,
            definitions.DECODE_TIME,
            definitions.TIME_TO_FIRST_TOKEN,
            definitions.INTER_TOKEN_TIME,
            definitions.CACHE_LATENCY,
        }
    )


def test_a_prefill_without_a_first_token_is_not_taken_for_a_whole_one() -> None:
    recorder = MetricsRecorder()
    recorder.observe_request(dataclasses.replace(TIMINGS, decode_s=None))
    observed = {series.definition for series, _ in recorder.drain().observations}
    assert observed.isdisjoint({definitions.PREFILL_TIME, definitions.TIME_TO_FIRST_TOKEN})
    assert definitions.SEND_TIME in observed


def test_a_refused_request_is_counted_as_nothing_else() -> None:
    recorder = MetricsRecorder()
    recorder.observe_request(
        dataclasses.replace(
            TIMINGS, outcome=Outcome.REFUSED, error_code=ErrorCode.UNAVAILABLE, finish_reason="draining"
        )
    )
    readings = recorder.drain()
    assert readings.totals == {Series(definitions.REJECTIONS, ("draining",)): 1}
    assert readings.observations == ()


def test_rejections_are_counted_by_reason() -> None:
    recorder = MetricsRecorder()
    for reason in ("overload", "quota", "overload"):
        recorder.count_rejection(reason)
    totals = recorder.drain().totals
    assert totals[Series(definitions.REJECTIONS, ("overload",))] == 2
    assert totals[Series(definitions.REJECTIONS, ("quota",))] == 1


def test_the_last_snapshot_holds() -> None:
    recorder = MetricsRecorder()
    recorder.set_snapshot(SNAPSHOT)
    recorder.set_snapshot(dataclasses.replace(SNAPSHOT, num_running=9, num_preemptions=2))
    readings = recorder.drain()
    assert readings.levels[Series(definitions.REQUESTS_RUNNING)] == 9
    assert readings.levels[Series(definitions.PAGES, ("raw", "free"))] == 10
    assert readings.levels[Series(definitions.HEARTBEAT)] == 1_700_000_000.5
    assert readings.totals[Series(definitions.PREEMPTIONS)] == 2
    assert readings.totals[Series(definitions.EVICTIONS, ("capacity",))] == 6


def test_there_are_no_levels_before_the_engine_has_spoken() -> None:
    assert MetricsRecorder().drain().levels == {}


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_impossible_times_are_our_own_mistake(seconds: float) -> None:
    with pytest.raises(AssertionError):
        dataclasses.replace(TIMINGS, prefill_s=seconds)


def test_labels_are_named_in_order() -> None:
    assert Series(definitions.PAGES, ("sealed", "held")).labels() == {"kind": "sealed", "state": "held"}


@given(st.lists(st.none() | timings_strategy | st.sampled_from(["overload", "quota"])))
def test_readings_add_up_whenever_they_are_taken(events: list[RequestTimings | str | None]) -> None:
    """None stands for a reading in between."""
    recorder, observed, previous = MetricsRecorder(), Counter[Series](), Counter[Series]()
    for event in [*events, None]:
        if isinstance(event, RequestTimings):
            recorder.observe_request(event)
        elif event is not None:
            recorder.count_rejection(event)
        else:
            readings = recorder.drain()
            assert all(readings.totals[series] >= total for series, total in previous.items())
            previous = Counter(readings.totals)
            observed.update(series for series, _ in readings.observations)
    requests = [event for event in events if isinstance(event, RequestTimings)]
    assert previous[Series(definitions.PROMPT_TOKENS)] == sum(request.num_prompt_tokens for request in requests)
    assert previous[Series(definitions.CACHED_TOKENS)] == sum(request.num_cached_tokens for request in requests)
    assert previous[Series(definitions.REJECTIONS, ("quota",))] == events.count("quota")
    assert observed[Series(definitions.QUEUE_TIME)] == len(requests)
    num_with_first_token = sum(request.ttft_s is not None for request in requests)
    assert observed[Series(definitions.TIME_TO_FIRST_TOKEN)] == num_with_first_token


def test_nothing_is_lost_between_threads() -> None:
    recorder, num_threads, num_each = MetricsRecorder(), 4, 200
    barrier = threading.Barrier(num_threads + 1)

    def produce() -> None:
        barrier.wait()
        for _ in range(num_each):
            recorder.observe_request(TIMINGS)
            recorder.count_rejection("overload")

    threads = [threading.Thread(target=produce) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    barrier.wait()
    readings = [recorder.drain() for _ in range(50)]
    for thread in threads:
        thread.join()
    readings.append(recorder.drain())
    queue_times = [s for reading in readings for s, _ in reading.observations if s.definition is definitions.QUEUE_TIME]
    assert len(queue_times) == num_threads * num_each
    assert readings[-1].totals[Series(definitions.REJECTIONS, ("overload",))] == num_threads * num_each
    assert readings[-1].totals[Series(definitions.PROMPT_TOKENS)] == 100 * num_threads * num_each
