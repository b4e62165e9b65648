"""Deadlines over HTTP: a request ends when its time is over, whatever the server does or leaves undone."""

from __future__ import annotations

import http.server
import json
import select
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from folio_client import DeadlineExceeded, RetryPolicy
from tests.client.clients import opened_client
from tests.client.local_servers import Quiet, serving
from tests.server.grpc_stream import LIMIT_S

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENT = b'data: {"text_output": "one", "finish_reason": "None"}\n\n'
# Server-sent events' own way to say that the connection still stands.
COMMENT = b": still here\n\n"
STREAM = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}
HALF = {"Content-Type": "application/json", "Content-Length": "1000"}
# A busy machine, too, brings the beginning of an answer in less.
TIMEOUT_S = 0.99


class StuckServer(http.server.ThreadingHTTPServer):
    """Begins every answer but a model's metadata and never ends one; a client that leaves is noticed.

    Args:
        keeps_alive: whether its streams go on to send comments.

    Attributes:
        has_left: set when a client has given an answer up.
    """

    daemon_threads = True

    def __init__(self, *, keeps_alive: bool) -> None:
        super().__init__(("127.0.0.1", 0), StuckAnswer)
        self.keeps_alive = keeps_alive
        self.has_left = threading.Event()


class StuckAnswer(Quiet, http.server.BaseHTTPRequestHandler):
    """One connection to a `StuckServer`."""

    protocol_version = "HTTP/1.1"
    server: StuckServer

    def do_GET(self) -> None:
        """Metadata, or the beginning of an answer."""
        if self.path.endswith("/ready"):
            self.begin(HALF, b"{")
            self.wait_until_left(None)
        else:
            metadata = json.dumps({"inputs": [{"name": "text_input"}, {"name": "stream"}]}).encode()
            self.begin({"Content-Length": str(len(metadata))}, metadata)

    def do_POST(self) -> None:
        """The first event of a stream."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.begin(STREAM, chunk(EVENT))
        self.wait_until_left(chunk(COMMENT) if self.server.keeps_alive else None)

    def begin(self, headers: dict[str, str], content: bytes) -> None:
        """Sends headers and the first of the content."""
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def wait_until_left(self, said_meanwhile: bytes | None) -> None:
        """Says no more than this, again and again, until the client closes the connection."""
        pause_s, num_pauses = (LIMIT_S, 1) if said_meanwhile is None else (0.01, 500)
        self.close_connection = True
        for _ in range(num_pauses):
            if select.select([self.connection], [], [], pause_s)[0]:
                self.server.has_left.set()
                return
            self.wfile.write(said_meanwhile or b"")


def chunk(content: bytes) -> bytes:
    """A piece of a body whose length is not known."""
    return b"%x\r\n%b\r\n" % (len(content), content)


@contextmanager
def stuck_client(style: str, *, keeps_alive: bool) -> Iterator[tuple[Any, StuckServer]]:
    """A client of a server that gets stuck, and the server."""
    server = StuckServer(keeps_alive=keeps_alive)
    with (
        serving(server) as port,
        opened_client(f"http://127.0.0.1:{port}", style, retry=RetryPolicy(max_attempts=1)) as client,
    ):
        yield client, server


@pytest.mark.parametrize("keeps_alive", [False, True])
def test_a_stream_that_gets_stuck_is_cut_off(style: str, keeps_alive: bool) -> None:
    with stuck_client(style, keeps_alive=keeps_alive) as (client, server):
        with client.stream("Hi", timeout_s=TIMEOUT_S) as stream:
            assert next(stream).text == "one"
            with pytest.raises(DeadlineExceeded, match=r"within 0\.\d+ s") as failure:
                next(stream)
            assert failure.value.field == "timeout_s"
            assert stream.result.text == "one"
        # Not only when the client is closed.
        assert server.has_left.wait(LIMIT_S)


def test_an_answer_that_gets_stuck_ends_with_the_deadline(style: str) -> None:
    with stuck_client(style, keeps_alive=False) as (client, server):
        with pytest.raises(DeadlineExceeded):
            client.is_ready(timeout_s=TIMEOUT_S)
        assert server.has_left.wait(LIMIT_S)
