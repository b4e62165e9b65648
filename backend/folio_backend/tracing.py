"""Spans of finished requests, as children of the server's own span, sent by OTLP over HTTP.

Knows OpenTelemetry, which is imported only where spans are wanted. Spans are sent on a thread of the SDK's, which drops
what it cannot get rid of. They hold times and counts. Which requests are traced is the server's choice (`--trace-config
rate=...`): one without a context gets no spans.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from folio_backend.errors import ConfigurationError
from folio_backend.request_timings import Outcome

if TYPE_CHECKING:
    from folio_backend.finished_request import FinishedRequest

EXPORT_TIMEOUT_S = 3.0
STOP_LIMIT_S = 3.0
"""What waits is sent at the end for so long; the SDK alone would wait 30 s for a receiver that does not answer."""

SERVICE_NAME = "folio"
_PREFIX = "folio."


class RequestTracer:
    """Makes spans.

    Args:
        url: the receiver, such as http://localhost:4318/v1/traces. The SDK's own variables, `OTEL_SERVICE_NAME`,
            `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_BSP_SCHEDULE_DELAY` and so on, say the rest.
        attributes: what every span says, as the model's name.

    Raises:
        ConfigurationError: no such address, or the packages are not installed.
    """

    def __init__(self, url: str, attributes: Mapping[str, str]) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError("trace_url is no HTTP address; allowed: such as http://localhost:4318/v1/traces.")
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
            from opentelemetry.trace import StatusCode  # noqa: PLC0415
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415
        except ImportError as error:
            raise ConfigurationError(
                f"trace_url is set and {error.name} is not installed; "
                "allowed: opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http in the stub's Python."
            ) from error
        # Merged in this order the environment's words win.
        resource = Resource.create({"service.name": SERVICE_NAME}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource)
        self._exporter = OTLPSpanExporter(endpoint=url, timeout=EXPORT_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("folio")
        self._propagator = TraceContextTextMapPropagator()
        self._failed = StatusCode.ERROR
        self._attributes = {f"{_PREFIX}{name}": value for name, value in attributes.items()}

    def observe(self, finished: FinishedRequest) -> None:
        """Makes a span of each phase of a traced request."""
        if not finished.trace_context:
            return
        parent = self._propagator.extract(finished.trace_context)
        attributes = {
            **self._attributes,
            f"{_PREFIX}outcome": finished.outcome.value,
            **{f"{_PREFIX}{name}": count for name, count in finished.counts.items()},
        }
        start_ns = _nanoseconds(finished.arrival_time_s)
        for phase, length_s in finished.phases_s.items():
            span = self._tracer.start_span(phase, parent, attributes=attributes, start_time=start_ns)
            start_ns += _nanoseconds(length_s)
            if finished.outcome is Outcome.FAILED:
                span.set_status(self._failed)
            span.end(start_ns)

    def stop(self) -> None:
        """Sends what waits, as far as the receiver takes it in time, and ends."""
        limit = threading.Timer(STOP_LIMIT_S, self._exporter.shutdown)
        limit.start()
        self._provider.shutdown()
        limit.cancel()


def _nanoseconds(time_s: float) -> int:
    return round(time_s * 1e9)
