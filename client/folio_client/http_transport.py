"""The way to a server over HTTP: a pool of connections, and server-sent events for each generation.

Uses httpx2, which carries on httpx: one well-kept library with pools, streaming, server-sent events and TLS for both
clients. Does not know JSON or tensors (`http_messages`).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping

import httpx2

from folio_client.connection import Connection
from folio_client.error_text import deadline_exceeded
from folio_client.http_messages import (
    check_status,
    generate_body,
    http_client_options,
    model_path,
    read_event,
    read_input_names,
    read_tensors,
    tensor_body,
    timeouts,
    translated_errors,
)
from folio_client.types import Tensor
from folio_client.wire import GenerateCall, Outputs, TensorCall


class HttpTransport:
    """A `Transport` over HTTP.

    Args:
        connection: where the server is.
    """

    def __init__(self, connection: Connection) -> None:
        self._http = httpx2.Client(**http_client_options(connection))

    def stream(self, call: GenerateCall) -> Generator[Outputs, None, None]:
        """See `Transport.stream`; the deadline is looked at with every event."""
        path, body = model_path(call.model, "/generate_stream"), generate_body(call)
        end_s = time.monotonic() + call.timeout_s
        with (
            translated_errors(call.timeout_s),
            self._http.sse(path, method="POST", content=body, timeout=timeouts(call.timeout_s)) as events,
        ):
            if events.response.is_error:
                events.response.read()
                check_status(events.response)
            for event in events:
                if time.monotonic() > end_s:
                    raise deadline_exceeded(call.timeout_s)
                yield read_event(event.data)

    def infer(self, call: TensorCall) -> Mapping[str, Tensor]:
        """See `Transport.infer`."""
        body, headers = tensor_body(call)
        path = model_path(call.model, "/infer")
        with translated_errors(call.timeout_s):
            response = self._http.post(path, content=body, headers=headers, timeout=timeouts(call.timeout_s))
        return read_tensors(response)

    def is_ready(self, model: str, timeout_s: float) -> bool:
        """See `Transport.is_ready`."""
        with translated_errors(timeout_s):
            return self._http.get(model_path(model, "/ready"), timeout=timeouts(timeout_s)).is_success

    def input_names(self, model: str, timeout_s: float) -> frozenset[str]:
        """See `Transport.input_names`."""
        with translated_errors(timeout_s):
            return read_input_names(self._http.get(model_path(model), timeout=timeouts(timeout_s)))

    def close(self) -> None:
        """See `Transport.close`."""
        self._http.close()
