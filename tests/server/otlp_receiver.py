"""A receiver of OpenTelemetry's traces over HTTP, in both of its forms: JSON (the server's) and protobuf (ours)."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


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


class OtlpReceiver:
    """Listens on a free port inside a `with` block and keeps what it gets.

    Attributes:
        url: where to send.
        bodies: every request's body, as it came.
    """

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._documents: list[dict[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def spans(self) -> list[Span]:
        """Every span so far."""
        return [span for document in list(self._documents) for span in _spans(document)]

    def _take(self, content_type: str, body: bytes) -> None:
        if content_type == "application/json":
            document = json.loads(body)
        else:
            assert content_type == "application/x-protobuf"
            document = MessageToDict(ExportTraceServiceRequest.FromString(body))
        self.bodies.append(body)
        self._documents.append(document)

    def _handler(receiver) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver._take(self.headers["Content-Type"], body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Stays quiet."""

        return Handler


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
