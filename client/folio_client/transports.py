"""Picks the transport for a connection, and loads that one alone: gRPC and HTTP bring libraries of their own."""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from folio_client.connection import Connection
    from folio_client.wire import AsyncTransport, Transport


def open_transport(connection: Connection) -> Transport:
    """The synchronous way to a server; connects when first used."""
    if connection.protocol == "grpc":
        from folio_client.grpc_transport import GrpcTransport

        return GrpcTransport(connection)
    from folio_client.http_transport import HttpTransport

    return HttpTransport(connection)


def open_async_transport(connection: Connection) -> AsyncTransport:
    """The asynchronous way to a server; made inside the event loop that will use it."""
    if connection.protocol == "grpc":
        from folio_client.grpc_aio_transport import AsyncGrpcTransport

        return AsyncGrpcTransport(connection)
    from folio_client.http_aio_transport import AsyncHttpTransport

    return AsyncHttpTransport(connection)
