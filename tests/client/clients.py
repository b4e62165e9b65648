"""Clients for tests: either style, of any server."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from folio_client import AsyncClient, Client
from tests.client.blocking import Blocking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.server.running_server import RunningServer

PROTOCOLS = ("grpc", "http")


def url_of(server: RunningServer, protocol: str) -> str:
    """Where a server is, as a client is told."""
    return f"{protocol}://{server.grpc_address if protocol == 'grpc' else server.http_address}"


@contextmanager
def opened_client(url: str, style: str, **options: Any) -> Iterator[Any]:
    """A client, synchronous or behind `Blocking`."""
    if style == "sync":
        with Client(url, **options) as client:
            yield client
        return
    loop = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        with Blocking(loop.run_until_complete(_async_client(url, options)), loop) as blocking:
            yield blocking
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()


async def _async_client(url: str, options: dict[str, Any]) -> AsyncClient:
    return AsyncClient(url, **options)
