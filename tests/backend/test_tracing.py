"""Spans of finished requests, and what stands in their way."""

from __future__ import annotations

import sys

import pytest

from folio_backend.errors import ConfigurationError
from folio_backend.finished_request import FinishedRequest
from folio_backend.request_timings import Outcome
from folio_backend.tracing import RequestTracer
from tests.server.otlp_receiver import OtlpReceiver

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PHASES_S = {"queue": 0.25, "prefill": 0.5, "send": 0.125}


def request(flags: str = "01") -> FinishedRequest:
    context = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-{flags}"}
    counts = {"num_prompt_tokens": 7}
    return FinishedRequest("r", Outcome.FAILED, 1.7e9, 0.875, PHASES_S, counts=counts, trace_context=context)


def test_phases_become_children_one_after_another() -> None:
    with OtlpReceiver() as receiver:
        tracer = RequestTracer(receiver.url, {"model": "smollm2"})
        tracer.observe(request())
        tracer.stop()
        spans = sorted(receiver.spans(), key=lambda span: span.start_ns)
    assert [(span.name, span.length_s) for span in spans] == list(PHASES_S.items())
    assert spans[0].start_ns == round(1.7e18)
    assert {(span.trace_id, span.parent_id, span.service) for span in spans} == {(TRACE_ID, PARENT_ID, "folio")}
    expected = {"folio.model": "smollm2", "folio.outcome": "failed", "folio.num_prompt_tokens": 7}
    assert [span.attributes for span in spans] == [expected] * 3


def test_what_the_server_does_not_trace_has_no_spans() -> None:
    with OtlpReceiver() as receiver:
        tracer = RequestTracer(receiver.url, {})
        tracer.observe(FinishedRequest("r", Outcome.OK, 1.7e9, 0.875, PHASES_S))
        tracer.observe(request(flags="00"))
        tracer.stop()
        assert receiver.spans() == []


def test_the_service_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    with OtlpReceiver() as receiver:
        tracer = RequestTracer(receiver.url, {})
        tracer.observe(request())
        tracer.stop()
        assert {span.service for span in receiver.spans()} == {"ours"}


def test_an_address_that_is_none_stops_the_load_and_is_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="trace_url is no HTTP address") as refusal:
        RequestTracer("grpc://name:secret@host", {})
    assert "secret" not in str(refusal.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigurationError, match="opentelemetry-sdk"):
        RequestTracer("http://localhost:4318/v1/traces", {})
