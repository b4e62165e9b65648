"""A server with room for one running and two waiting requests: who is refused, and who comes first."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.server.generate_client import GenerateClient, sampling, wait_until
from tests.server.grpc_stream import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.server.grpc_stream import Stream, Value
    from tests.server.running_server import RunningServer


def request(max_tokens: int, **fields: Value) -> dict[str, Value]:
    """A request for so many tokens."""
    parameters = sampling(max_tokens=max_tokens, ignore_eos=True)
    return {"text_input": "Once upon a time", "stream": True, "sampling_parameters": parameters, **fields}


@pytest.fixture
def client(small_server: RunningServer) -> GenerateClient:
    """A client of the small server."""
    return GenerateClient(small_server)


@pytest.fixture
def running(client: GenerateClient) -> Iterator[Stream]:
    """A request that takes the only place, until it is cancelled as `running`."""
    baseline = client.num_held_pages()
    with client.stream(request(4000), request_id="running") as stream:
        stream.next_response()
        yield stream
    wait_until(lambda: counts(client) == {"running": 0, "waiting": 0})
    assert client.num_held_pages() == baseline
    assert client.operation("health")["integrity_error"] is None


def counts(client: GenerateClient) -> dict[str, int]:
    """Requests that run and that wait."""
    requests = client.operation("stats")["requests"]
    assert isinstance(requests, dict)
    return requests


def test_overload_is_refused_at_once_and_the_others_go_on(client: GenerateClient, running: Stream) -> None:
    with contextlib.ExitStack() as streams:
        sessions = client.operation("sessions")
        waiting = [streams.enter_context(client.stream(request(3))) for _ in range(2)]
        wait_until(lambda: counts(client) == {"running": 1, "waiting": 2})
        for send in (client.infer, lambda fields: client.generate(**fields), lambda fields: turn(client, fields)):
            with pytest.raises(Refused, match=r"^2 requests wait already\.") as refusal:
                send(request(1, stream=False))
            assert refusal.value.details.keys() == {"code", "allowed", "retry_after_ms"}
            assert 100 <= refusal.value.details["retry_after_ms"] <= 30_000
        assert counts(client) == {"running": 1, "waiting": 2}
        assert client.operation("sessions") == sessions
        running.next_response()
        client.operation("cancel", request_id="running")
        texts = ["".join(response.text for response in stream) for stream in waiting]
    assert (
        texts[0] == texts[1] == client.generate(**request(3, stream=False, exclude_input_in_output=True))["text_output"]
    )


def turn(client: GenerateClient, fields: dict[str, Value]) -> dict[str, Any]:
    """The same in a session, which must not stay behind when it is refused."""
    return client.generate(**fields, session_id="overload")


@pytest.mark.parametrize(
    ("later", "sooner"),
    [
        ({"request_priority": 1}, {"request_priority": 0}),
        ({}, {"request_priority": -1}),
        ({}, {"deadline_ms": 600_000}),
        ({"deadline_ms": 600_000}, {"deadline_ms": 500_000}),
    ],
)
def test_priority_then_deadline_decide_who_is_next(
    client: GenerateClient, running: Stream, later: dict[str, Value], sooner: dict[str, Value]
) -> None:
    with client.stream(request(2, **later), request_id="later") as stream:
        wait_until(lambda: counts(client)["waiting"] == 1)
        stream.send(request(2, **sooner), request_id="sooner")
        wait_until(lambda: counts(client)["waiting"] == 2)
        client.operation("cancel", request_id="running")
        with pytest.raises(Refused, match="cancelled"):
            list(running)
        order = [stream.next_response().request_id for _ in range(4)]
    assert order == ["sooner", "sooner", "later", "later"]


def test_a_deadline_that_passes_in_the_queue_ends_the_wait(client: GenerateClient, running: Stream) -> None:
    with pytest.raises(Refused, match=r"^The deadline of 200 ms has passed\. "):
        client.infer(request(2, deadline_ms=200))
    running.next_response()
