"""A generate model's wire as clients see it: `/generate`, `/generate_stream`, and gRPC streams.

Knows server-sent events and admin operations. Shares no code with Folio's own client, so that the two check each
other.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from typing import TYPE_CHECKING, Any, Protocol

from tests.server.grpc_stream import LIMIT_S, MODEL, Refused, Response, Stream, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PAUSE_S = 0.02


class Addresses(Protocol):
    """Where a running server is: `host:port` of each protocol."""

    http_address: str
    grpc_address: str


class GenerateClient:
    """Requests to one server.

    Args:
        server: where it is.
    """

    def __init__(self, server: Addresses) -> None:
        self._server = server

    @contextlib.contextmanager
    def post(self, endpoint: str, fields: Mapping[str, Any]) -> Iterator[http.client.HTTPResponse]:
        """The answer to a POST at the model, its body not read yet; the connection ends with the block."""
        connection = http.client.HTTPConnection(self._server.http_address, timeout=LIMIT_S)
        try:
            connection.request("POST", f"/v2/models/{MODEL}/{endpoint}", json.dumps(fields))
            yield connection.getresponse()
        finally:
            connection.close()

    def generate(self, **fields: Any) -> dict[str, Any]:
        """What /generate answers.

        Raises:
            Refused: an error, in whatever place.
        """
        with self.post("generate", fields) as response:
            return _checked(json.loads(response.read()))

    def generate_stream(self, **fields: Any) -> list[dict[str, Any]]:
        """The events of /generate_stream; raises as `generate`."""
        with self.post("generate_stream", fields) as response:
            assert response.headers["Content-Type"].startswith("text/event-stream")
            return list(events(response))

    def stream(self, fields: Mapping[str, Value], *, timeout_s: float | None = None, **options: Any) -> Stream:
        """Sends a request over gRPC; see `Stream`."""
        return Stream(self._server.grpc_address, fields, options, timeout_s)

    def infer(self, fields: Mapping[str, Value], **options: Any) -> list[Response]:
        """Every response to a request over gRPC.

        Raises:
            Refused: it has failed.
        """
        with self.stream(fields, **options) as stream:
            return list(stream)

    def operation(self, op: str, **arguments: Any) -> dict[str, Any]:
        """The result of an admin operation; raises as `infer`."""
        (response,) = self.infer({"op": json.dumps({"op": op, **arguments})})
        (document,) = response.texts("result")
        result = json.loads(document)
        assert isinstance(result, dict)
        return result

    def num_held_pages(self) -> dict[str, int]:
        """How many pages requests and sessions hold, by kind."""
        return {kind: states["held"] for kind, states in self.operation("stats")["pages"].items()}


def events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Server-sent events, each as soon as it is there.

    Raises:
        Refused: one of them is an error.
    """
    for line in response:
        if line.strip():
            assert line.startswith(b"data: "), line
            yield _checked(json.loads(line.removeprefix(b"data: ")))


def sampling(**parameters: Any) -> str:
    """`sampling_parameters`, greedy unless they say otherwise."""
    return json.dumps({"temperature": 0, **parameters})


def wait_until(condition: Callable[[], bool]) -> None:
    """Returns once a condition holds.

    The server's answers decide; the pause between two questions leaves it its processor.
    """
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(PAUSE_S)


def _checked(members: dict[str, Any]) -> dict[str, Any]:
    if "error" in members:
        raise Refused(members["error"])
    return members
