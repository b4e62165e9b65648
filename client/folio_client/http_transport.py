"""The way to a server over HTTP: a pool of connections, and server-sent events for each generation.

Uses httpx2, which carries on httpx: one well-kept library with pools, streaming, server-sent events and TLS for both
clients. Does not know JSON or tensors (`http_messages`).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import httpx2

from folio_client.connection import Connection
from folio_client.error_text import deadline_exceeded
from folio_client.http_deadline import TimeLeft, cut_off_at
from folio_client.http_messages import (
    check_status,
    generate_body,
    http_client_options,
    model_path,
    read_event,
    read_input_names,
    read_readiness,
    read_tensors,
    stream_request,
    tensor_body,
    translated_errors,
)
from folio_client.retry import Deadline
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
        """See `Transport.stream`; the deadline is looked at with every event, and ends a connection without any."""
        path, body = model_path(call.model, "/generate_stream"), generate_body(call)
        deadline = Deadline.after(call.timeout_s)
        with (
            translated_errors(deadline),
            self._http.sse(path, **stream_request(body, deadline)) as events,
            cut_off_at(deadline, events.response),
        ):
            if events.response.is_error:
                events.response.read()
                check_status(events.response)
            for event in events:
                if deadline.is_over:
                    raise deadline_exceeded(call.timeout_s)
                yield read_event(event.data)

    def infer(self, call: TensorCall) -> Mapping[str, Tensor]:
        """See `Transport.infer`."""
        body, headers = tensor_body(call)
        path = model_path(call.model, "/infer")
        return read_tensors(self._answer("POST", path, call.timeout_s, content=body, headers=headers))

    def is_ready(self, model: str, timeout_s: float) -> bool:
        """See `Transport.is_ready`."""
        return read_readiness(self._answer("GET", model_path(model, "/ready"), timeout_s))

    def input_names(self, model: str, timeout_s: float) -> frozenset[str]:
        """See `Transport.input_names`."""
        return read_input_names(self._answer("GET", model_path(model), timeout_s))

    def close(self) -> None:
        """See `Transport.close`."""
        self._http.close()

    def _answer(self, method: str, path: str, timeout_s: float, **request: Any) -> httpx2.Response:
        """The answer to a request, read whole."""
        deadline = Deadline.after(timeout_s)
        with translated_errors(deadline):
            return self._http.request(method, path, extensions={"timeout": TimeLeft(deadline)}, **request)
