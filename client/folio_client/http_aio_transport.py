"""`http_transport` for asyncio; see there."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping

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


class AsyncHttpTransport:
    """An `AsyncTransport` over HTTP.

    Args:
        connection: where the server is.
    """

    def __init__(self, connection: Connection) -> None:
        self._http = httpx2.AsyncClient(**http_client_options(connection))

    async def stream(self, call: GenerateCall) -> AsyncGenerator[Outputs, None]:
        """See `Transport.stream`; the deadline is looked at with every event."""
        path, body = model_path(call.model, "/generate_stream"), generate_body(call)
        end_s = time.monotonic() + call.timeout_s
        with translated_errors(call.timeout_s):
            async with self._http.sse(path, method="POST", content=body, timeout=timeouts(call.timeout_s)) as events:
                if events.response.is_error:
                    await events.response.aread()
                    check_status(events.response)
                async for event in events:
                    if time.monotonic() > end_s:
                        raise deadline_exceeded(call.timeout_s)
                    yield read_event(event.data)

    async def infer(self, call: TensorCall) -> Mapping[str, Tensor]:
        """See `Transport.infer`."""
        body, headers = tensor_body(call)
        path = model_path(call.model, "/infer")
        with translated_errors(call.timeout_s):
            response = await self._http.post(path, content=body, headers=headers, timeout=timeouts(call.timeout_s))
        return read_tensors(response)

    async def is_ready(self, model: str, timeout_s: float) -> bool:
        """See `Transport.is_ready`."""
        with translated_errors(timeout_s):
            response = await self._http.get(model_path(model, "/ready"), timeout=timeouts(timeout_s))
        return response.is_success

    async def input_names(self, model: str, timeout_s: float) -> frozenset[str]:
        """See `Transport.input_names`."""
        with translated_errors(timeout_s):
            response = await self._http.get(model_path(model), timeout=timeouts(timeout_s))
        return read_input_names(response)

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._http.aclose()
