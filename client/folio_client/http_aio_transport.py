"""`http_transport` for asyncio; see there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2

from folio_client.connection import Connection
from folio_client.error_text import deadline_exceeded
from folio_client.http_deadline import TimeLeft
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


class AsyncHttpTransport:
    """An `AsyncTransport` over HTTP.

    Args:
        connection: where the server is.
    """

    def __init__(self, connection: Connection) -> None:
        self._http = httpx2.AsyncClient(**http_client_options(connection))

    async def stream(self, call: GenerateCall) -> AsyncGenerator[Outputs, None]:
        """See `HttpTransport.stream`."""
        path, body = model_path(call.model, "/generate_stream"), generate_body(call)
        deadline = Deadline.after(call.timeout_s)
        with translated_errors(deadline):
            async with self._http.sse(path, **stream_request(body, deadline)) as events:
                with _cut_off_at(deadline, events.response):
                    if events.response.is_error:
                        await events.response.aread()
                        check_status(events.response)
                    async for event in events:
                        if deadline.is_over:
                            raise deadline_exceeded(call.timeout_s)
                        yield read_event(event.data)

    async def infer(self, call: TensorCall) -> Mapping[str, Tensor]:
        """See `Transport.infer`."""
        body, headers = tensor_body(call)
        path = model_path(call.model, "/infer")
        return read_tensors(await self._answer("POST", path, call.timeout_s, content=body, headers=headers))

    async def is_ready(self, model: str, timeout_s: float) -> bool:
        """See `Transport.is_ready`."""
        return read_readiness(await self._answer("GET", model_path(model, "/ready"), timeout_s))

    async def input_names(self, model: str, timeout_s: float) -> frozenset[str]:
        """See `Transport.input_names`."""
        return read_input_names(await self._answer("GET", model_path(model), timeout_s))

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._http.aclose()

    async def _answer(self, method: str, path: str, timeout_s: float, **request: Any) -> httpx2.Response:
        """The answer to a request, read whole."""
        deadline = Deadline.after(timeout_s)
        with translated_errors(deadline):
            return await self._http.request(method, path, extensions={"timeout": TimeLeft(deadline)}, **request)


@contextmanager
def _cut_off_at(deadline: Deadline, response: httpx2.Response) -> Iterator[None]:
    """`http_deadline.cut_off_at`, but it closes the response: the sockets of some event loops cannot be shut down."""
    loop, closings = asyncio.get_running_loop(), list[asyncio.Task[None]]()
    timer = loop.call_later(deadline.left_s, lambda: closings.append(loop.create_task(response.aclose())))
    try:
        yield
    finally:
        timer.cancel()
