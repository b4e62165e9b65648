"""How the server's metrics interface is called; what it does with that shows in tests against a real one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from folio_backend.errors import ConfigurationError
from folio_backend.metric_definitions import METRICS, MetricKind
from folio_backend.metrics import EngineSnapshot, MetricsRecorder
from folio_backend.metrics_publisher import MetricsPublisher
from folio_backend.request_timings import RequestTimings
from folio_backend.triton_metrics import TritonMetricSink

LABELS = {"model": "smollm2", "version": "1"}


class _FakeMetric:
    """Takes what the server's metric of the same kind takes, and refuses what it refuses."""

    def __init__(self, kind: str, labels: dict[str, str], buckets: list[float] | None) -> None:
        assert type(labels) is dict
        assert (type(buckets) is list) == (kind == "histogram")
        self.kind, self.labels, self.buckets = kind, labels, buckets
        self.value = 0.0
        self.observations: list[float] = []

    def increment(self, value: float) -> None:
        assert self.kind == "counter"
        assert value >= 0
        self.value += value

    def set(self, value: float) -> None:
        assert self.kind == "gauge"
        self.value = value

    def observe(self, value: float) -> None:
        assert self.kind == "histogram"
        self.observations.append(value)


class _FakeServer:
    """The part of `triton_python_backend_utils` that metrics need."""

    def __init__(self) -> None:
        self.families: list[Any] = []
        families = self.families

        class MetricFamily:
            COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

            def __init__(self, name: str, description: str, kind: str) -> None:
                self.name, self.description, self.kind = name, description, kind
                self.metrics: list[_FakeMetric] = []
                families.append(self)

            def Metric(  # noqa: N802 - the server's name
                self, labels: dict[str, str], buckets: list[float] | None = None
            ) -> _FakeMetric:
                self.metrics.append(_FakeMetric(self.kind, labels, buckets))
                return self.metrics[-1]

        self.MetricFamily = MetricFamily

    def metric(self, name: str, **labels: str) -> _FakeMetric:
        (family,) = (family for family in self.families if family.name == name)
        (metric,) = (metric for metric in family.metrics if metric.labels == LABELS | labels)
        assert isinstance(metric, _FakeMetric)
        return metric


def fail(error: Exception) -> None:
    raise error


def test_a_family_is_made_once_for_all_its_label_values() -> None:
    server = _FakeServer()
    MetricsPublisher(MetricsRecorder(), TritonMetricSink(server), LABELS, on_error=fail)
    names = [family.name for family in server.families]
    assert len(set(names)) == len(names)
    (pages,) = (family for family in server.families if family.name == "folio_pages")
    assert len(pages.metrics) == 8


def test_families_carry_help_kind_and_buckets() -> None:
    server = _FakeServer()
    MetricsPublisher(MetricsRecorder(), TritonMetricSink(server), LABELS, on_error=fail)
    declared = {metric.name: metric for metric in METRICS}
    for family in server.families:
        metric = declared[family.name]
        assert (family.description, family.kind) == (metric.help, metric.kind.value.lower())
        assert all(tuple(child.buckets or ()) == metric.buckets for child in family.metrics)


def test_values_reach_the_server() -> None:
    server, recorder = _FakeServer(), MetricsRecorder()
    publisher = MetricsPublisher(recorder, TritonMetricSink(server), LABELS, on_error=fail)
    for _ in range(2):
        recorder.observe_request(RequestTimings(1.5e9, 0.5, 0.5, 0.75, 0.25, None, 0.125, 100, 64, 1, "stop"))
        recorder.count_rejection("overload")
        publisher.flush()
    recorder.set_snapshot(
        EngineSnapshot(3, 4, {("raw", "free"): 10}, 2, {"capacity": 6}, 1, 0, 4_000, 1_000, 2_048, 8_192, 1.5e9)
    )
    publisher.stop()
    assert server.metric("folio_prompt_tokens_total").value == 200
    assert server.metric("folio_rejections_total", reason="overload").value == 2
    assert server.metric("folio_evictions_total", reason="capacity").value == 6
    assert server.metric("folio_engine_heartbeat_timestamp_seconds").value == 1.5e9
    assert server.metric("folio_time_to_first_token_seconds").observations == [1.0, 1.0]
    assert server.metric("folio_inter_token_seconds").observations == []


@pytest.mark.parametrize("missing", [kind.value for kind in MetricKind])
def test_a_server_without_a_kind_of_metric_is_refused(missing: str) -> None:
    kinds = {kind.value: kind.value for kind in MetricKind if kind.value != missing}
    with pytest.raises(ConfigurationError, match=missing):
        TritonMetricSink(SimpleNamespace(MetricFamily=SimpleNamespace(**kinds)))
