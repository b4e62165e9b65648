"""Addresses and headers."""

from __future__ import annotations

import pytest

from folio_client import InvalidArgument
from folio_client.connection import Connection, ConnectionOptions


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("grpc://localhost", ("grpc", "localhost:8001", False)),
        ("grpcs://example.org", ("grpc", "example.org:443", True)),
        ("http://localhost:9000/", ("http", "localhost:9000", False)),
        ("https://[::1]", ("http", "[::1]:443", True)),
    ],
)
def test_urls(url: str, expected: tuple[str, str, bool]) -> None:
    connection = Connection.parse(url, {})
    assert (connection.protocol, connection.address, connection.is_encrypted) == expected


@pytest.mark.parametrize(
    "url", ["localhost:8001", "ftp://x", "http://", "http://x:70000", "http://x/v2", "http://user@x", "grpc://x?y"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        Connection.parse(url, {})
    assert refusal.value.field == "url"


def test_headers_say_who_asks_and_are_not_shown() -> None:
    options: ConnectionOptions = {"api_key": "k", "bearer_token": "t", "headers": {"X-Team": "blue"}}
    connection = Connection.parse("grpc://x", options)
    assert connection.headers == {"x-team": "blue", "x-api-key": "k", "authorization": "Bearer t"}
    assert "Bearer" not in repr(connection)


def test_the_header_that_crashes_the_server_is_never_sent() -> None:
    with pytest.raises(InvalidArgument, match="triton_grpc_error"):
        Connection.parse("grpc://x", {"headers": {"Triton_GRPC_Error": "true"}})
