"""What may answer over HTTP besides a model: gateways, something else altogether, and events of any size."""

from __future__ import annotations

import http.server
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from folio_client import ConnectionFailed, FolioError, InvalidArgument, RetryPolicy, ServerError
from tests.client.clients import opened_client
from tests.client.local_servers import Quiet, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

METADATA = json.dumps({"inputs": [{"name": "op"}]})


@contextmanager
def answered(style: str, status: int, got: str, posted: tuple[str, str] = ("", "")) -> Iterator[Any]:
    """A client whose every GET is answered with `got`, and every POST with `posted`, a type of content and content."""

    class Handler(Quiet, http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer("application/json", got)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(*posted)

        def answer(self, kind: str, content: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(content.encode())

    with (
        serving(http.server.HTTPServer(("127.0.0.1", 0), Handler)) as port,
        opened_client(f"http://127.0.0.1:{port}", style, retry=RetryPolicy(max_attempts=1)) as client,
    ):
        yield client


@pytest.mark.parametrize(("status", "kind"), [(401, InvalidArgument), (403, InvalidArgument), (502, ConnectionFailed)])
def test_a_gateway_that_says_no_is_no_model_that_is_not_ready(style: str, status: int, kind: type[FolioError]) -> None:
    with answered(style, status, "") as client, pytest.raises(kind):
        client.is_ready()


@pytest.mark.parametrize("status", [400, 404, 503])
def test_a_model_that_is_not_ready_is_no_error(style: str, status: int) -> None:
    with answered(style, status, "") as client:
        assert client.is_ready() is False


@pytest.mark.parametrize("content", ["", "<html>Welcome</html>", "[]", "{}", '{"inputs": 1, "outputs": 1}'])
def test_what_is_no_answer_of_triton_is_the_servers_fault(style: str, content: str) -> None:
    tokens = np.zeros((1, 1, 64), np.float32)
    with answered(style, 200, content, ("application/json", content)) as client:
        with pytest.raises(ServerError):
            client.generate("Hi")
        with pytest.raises(ServerError):
            client.attention.step("s", tokens, tokens, tokens)


def test_an_event_may_be_of_any_size(style: str) -> None:
    document = {"sessions": [{"session_id": "s" * 3_000_000, "num_tokens": 1}]}
    event = f"data: {json.dumps({'result': json.dumps(document)})}\n\n"
    with answered(style, 200, METADATA, ("text/event-stream", event)) as client:
        (session,) = client.admin.sessions()
    assert len(session.session_id) == 3_000_000
