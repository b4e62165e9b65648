"""A receiver of OpenTelemetry's traces over HTTP, in both of its forms: JSON (the server's) and protobuf (ours)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.server.http_receiver import HttpReceiver


@dataclass(frozen=True)
class Span:
    """A span as it was received; times in nanoseconds since 1970."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, str | int]

    @property
    def length_s(self) -> float:
        """How long it lasted."""
        return (self.end_ns - self.start_ns) / 1e9


class OtlpReceiver(HttpReceiver):
    """Keeps what it gets.

    Attributes:
        url: where to send.
        bodies: every request's body, as it came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[bytes] = []
        self._documents: list[dict[str, Any]] = []
        self.url = f"http://{self.address}/v1/traces"

    def spans(self) -> list[Span]:
        """Every span so far."""
        return [span for document in list(self._documents) for span in _spans(document)]

    def take(self, path: str, content_type: str, body: bytes) -> None:
        """See `HttpReceiver.take`."""
        del path
        if content_type == "application/json":
            document = json.loads(body)
        else:
            assert content_type == "application/x-protobuf"
            document = MessageToDict(ExportTraceServiceRequest.FromString(body))
        self.bodies.append(body)
        self._documents.append(document)


def _spans(document: Mapping[str, Any]) -> Iterator[Span]:
    for resource in document["resourceSpans"]:
        service = _attributes(resource["resource"])["service.name"]
        for span in (span for scope in resource["scopeSpans"] for span in scope["spans"]):
            yield Span(
                service=str(service),
                name=span["name"],
                trace_id=_hexadecimal(span["traceId"], 32),
                span_id=_hexadecimal(span["spanId"], 16),
                parent_id=_hexadecimal(span.get("parentSpanId", ""), 16),
                start_ns=int(span["startTimeUnixNano"]),
                end_ns=int(span["endTimeUnixNano"]),
                attributes=_attributes(span),
            )


def _attributes(holder: Mapping[str, Any]) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    for attribute in holder.get("attributes", ()):
        ((kind, value),) = attribute["value"].items()
        found[attribute["key"]] = int(value) if kind == "intValue" else value
    return found


def _hexadecimal(identity: str, length: int) -> str:
    """OTLP's JSON has hexadecimal ids, protobuf's own JSON base64."""
    if len(identity) in {0, length}:
        return identity
    return base64.b64decode(identity).hex()
