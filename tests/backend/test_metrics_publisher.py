"""What reaches the sink: everything once, only what changed, also when the sink fails."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folio_backend import metric_definitions as definitions
from folio_backend.metric_definitions import METRICS, VLLM_ALIASES, MetricDefinition
from folio_backend.metrics import EngineSnapshot, MetricsRecorder
from folio_backend.metrics_publisher import MetricsPublisher
from folio_backend.request_timings import RequestTimings

LABELS = {"model": "smollm2", "version": "1"}
TIMINGS = RequestTimings(1.5e9, 0.5, 0.5, 0.75, 0.25, 0.25, 0.125, 100, 64, 5, "length")
SNAPSHOT = EngineSnapshot(3, 4, {("raw", "free"): 10}, 2, {"capacity": 6}, 1, 0, 4_000, 1_000, 2_048, 8_192, 1.5e9)

Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass
class _Instrument:
    """Notes what is written."""

    sink: _MemorySink
    key: Key

    def increment(self, value: float) -> None:
        self.sink.write(self.key, "increment", value)

    def set(self, value: float) -> None:
        self.sink.write(self.key, "set", value)

    def observe(self, value: float) -> None:
        self.sink.write(self.key, "observe", value)


@dataclass
class _MemorySink:
    """Keeps what is written; raises for metrics that are named in `broken`."""

    broken: set[str] = field(default_factory=set)
    created: Counter[Key] = field(default_factory=Counter)
    writes: defaultdict[Key, list[tuple[str, float]]] = field(default_factory=lambda: defaultdict(list))
    heartbeat_written: threading.Event = field(default_factory=threading.Event)

    def counter(self, definition: MetricDefinition, labels: Mapping[str, str]) -> _Instrument:
        key = (definition.name, tuple(sorted(labels.items())))
        self.created[key] += 1
        return _Instrument(self, key)

    gauge = counter
    histogram = counter

    def write(self, key: Key, action: str, value: float) -> None:
        self.writes[key].append((action, value))
        if key[0] in self.broken:
            raise RuntimeError(key[0])
        if key[0] == definitions.HEARTBEAT.name:
            self.heartbeat_written.set()

    def values(self, name: str, **labels: str) -> list[float]:
        return [value for _, value in self.writes[name, tuple(sorted((LABELS | labels).items()))]]


def fail(error: Exception) -> None:
    raise error


def published(recorder: MetricsRecorder, sink: _MemorySink) -> MetricsPublisher:
    return MetricsPublisher(recorder, sink, LABELS, on_error=fail)


def test_every_metric_is_there_before_anything_happens() -> None:
    sink = _MemorySink()
    published(MetricsRecorder(), sink)
    unlabelled = {metric.name for metric in METRICS if all(label.known_values for label in metric.labels)}
    assert {name for name, _ in sink.created} == unlabelled
    assert ("kv_cache_requests_total", tuple(sorted((LABELS | {"status": "hit"}).items()))) in sink.created
    assert sum(name == "folio_pages" for name, _ in sink.created) == 8
    assert not sink.writes


def test_values_arrive_under_their_labels() -> None:
    recorder, sink = MetricsRecorder(), _MemorySink()
    publisher = published(recorder, sink)
    recorder.observe_request(TIMINGS)
    recorder.count_rejection("overload")
    recorder.set_snapshot(SNAPSHOT)
    publisher.flush()
    assert sink.values("kv_cache_requests_total", status="hit") == [1]
    assert sink.values("folio_rejections_total", reason="overload") == [1]
    assert sink.values("folio_pages", kind="raw", state="free") == [10]
    assert sink.values("folio_time_to_first_token_seconds") == [1.0]
    assert sink.values("folio_evictions_total", reason="capacity") == [6]


def test_only_what_changed_is_written() -> None:
    recorder, sink = MetricsRecorder(), _MemorySink()
    publisher = published(recorder, sink)
    recorder.observe_request(TIMINGS)
    recorder.set_snapshot(SNAPSHOT)
    publisher.flush()
    num_writes = sum(map(len, sink.writes.values()))
    publisher.flush()
    assert sum(map(len, sink.writes.values())) == num_writes
    recorder.set_snapshot(dataclasses.replace(SNAPSHOT, num_running=9, num_preemptions=4))
    publisher.flush()
    assert sink.values("folio_requests_running") == [3, 9]
    assert sink.values("folio_preemptions_total") == [1, 3]
    assert sum(map(len, sink.writes.values())) == num_writes + 2


def test_aliases_carry_the_same_values() -> None:
    recorder, sink = MetricsRecorder(), _MemorySink()
    publisher = MetricsPublisher(recorder, sink, LABELS, on_error=fail, aliases=VLLM_ALIASES)
    recorder.observe_request(TIMINGS)
    recorder.set_snapshot(SNAPSHOT)
    publisher.flush()
    assert sink.values("vllm:time_to_first_token_seconds") == [1.0]
    assert sink.values("vllm:generation_tokens_total") == sink.values("folio_generated_tokens_total") == [5]
    assert sink.values("vllm:num_requests_waiting") == [4]


def test_the_thread_writes_and_stop_writes_the_rest() -> None:
    recorder, sink = MetricsRecorder(), _MemorySink()
    publisher = MetricsPublisher(recorder, sink, LABELS, on_error=fail, interval_s=0.001)
    recorder.set_snapshot(SNAPSHOT)
    publisher.start()
    assert sink.heartbeat_written.wait(timeout=60)
    recorder.observe_request(TIMINGS)
    publisher.stop()
    assert sink.values("folio_prompt_tokens_total") == [100]
    assert not [thread for thread in threading.enumerate() if thread.name == "folio-metrics"]
    publisher.stop()
    assert sink.values("folio_prompt_tokens_total") == [100]


def test_stop_without_start_writes_what_there_is() -> None:
    recorder, sink = MetricsRecorder(), _MemorySink()
    publisher = published(recorder, sink)
    recorder.observe_request(TIMINGS)
    publisher.stop()
    assert sink.values("folio_prompt_tokens_total") == [100]


def test_a_series_that_fails_is_reported_once_and_spoils_no_other() -> None:
    errors: list[Exception] = []
    recorder, sink = MetricsRecorder(), _MemorySink(broken={"folio_queue_seconds", "folio_sessions"})
    publisher = MetricsPublisher(recorder, sink, LABELS, on_error=errors.append)
    for num_sessions in (1, 2, 3):
        recorder.observe_request(TIMINGS)
        recorder.set_snapshot(dataclasses.replace(SNAPSHOT, num_sessions=num_sessions))
        publisher.flush()
    assert sorted(str(error) for error in errors) == ["folio_queue_seconds", "folio_sessions"]
    assert sink.values("folio_sessions") == [1]
    assert sum(sink.values("folio_prompt_tokens_total")) == 300


def test_a_series_that_cannot_be_created_is_reported_once() -> None:
    class _RefusingSink(_MemorySink):
        def counter(self, definition: MetricDefinition, labels: Mapping[str, str]) -> _Instrument:
            if labels.get("reason") == "quota":
                raise RuntimeError(definition.name)
            return super().counter(definition, labels)

    errors: list[Exception] = []
    recorder = MetricsRecorder()
    publisher = MetricsPublisher(recorder, _RefusingSink(), LABELS, on_error=errors.append)
    for _ in range(2):
        recorder.count_rejection("quota")
        publisher.flush()
    assert [str(error) for error in errors] == ["folio_rejections_total"]


def test_a_total_that_falls_is_not_written() -> None:
    errors: list[Exception] = []
    recorder, sink = MetricsRecorder(), _MemorySink()
    publisher = MetricsPublisher(recorder, sink, LABELS, on_error=errors.append)
    for num_preemptions in (5, 2):
        recorder.set_snapshot(dataclasses.replace(SNAPSHOT, num_preemptions=num_preemptions))
        publisher.flush()
    assert sink.values("folio_preemptions_total") == [5]
    assert len(errors) == 1


def test_what_the_sink_raises_at_the_start_reaches_the_caller() -> None:
    class _BrokenSink(_MemorySink):
        def gauge(self, definition: MetricDefinition, labels: Mapping[str, str]) -> _Instrument:
            raise RuntimeError(definition.name, labels)

    with pytest.raises(RuntimeError):
        published(MetricsRecorder(), _BrokenSink())


@given(st.lists(st.sampled_from(["request", "miss", "reject", "preempt", "flush"])))
def test_counters_are_monotonic_and_sums_match_whatever_the_interleaving(events: list[str]) -> None:
    recorder, sink = MetricsRecorder(), _MemorySink()
    publisher = published(recorder, sink)
    for index, event in enumerate(events):
        if event == "request":
            recorder.observe_request(TIMINGS)
        elif event == "miss":
            recorder.observe_request(dataclasses.replace(TIMINGS, num_cached_tokens=0))
        elif event == "reject":
            recorder.count_rejection("overload")
        elif event == "preempt":
            num_preemptions = events[: index + 1].count("preempt")
            recorder.set_snapshot(dataclasses.replace(SNAPSHOT, num_preemptions=num_preemptions))
        else:
            publisher.flush()
    publisher.stop()
    assert all(value > 0 for writes in sink.writes.values() for action, value in writes if action == "increment")
    assert sum(sink.values("kv_cache_requests_total", status="hit")) == events.count("request")
    assert sum(sink.values("kv_cache_requests_total", status="miss")) == events.count("miss")
    assert sum(sink.values("folio_rejections_total", reason="overload")) == events.count("reject")
    assert sum(sink.values("folio_preemptions_total")) == events.count("preempt")
    assert sink.values("folio_queue_seconds") == [0.5] * (events.count("request") + events.count("miss"))
    assert max(sink.created.values()) == 1
