"""Requests that end early, whoever ends them: their pages are free again, and others are not disturbed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.server.generate_client import events, sampling, wait_until
from tests.server.grpc_stream import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.server.generate_client import GenerateClient
    from tests.server.grpc_stream import Value

# More than one page, so that raw and sealed pages are held.
PROMPT = "There once was a ship that put to sea, and the name of the ship was long. " * 8
ENDLESS = sampling(max_tokens=4000, ignore_eos=True)
IDLE = {"running": 0, "waiting": 0}


def endless(stream: bool = True, **fields: Value) -> dict[str, Value]:
    """A request that runs for minutes unless something ends it."""
    return {"text_input": PROMPT, "stream": stream, "sampling_parameters": ENDLESS, **fields}


def num_running(client: GenerateClient) -> int:
    """Requests that have begun."""
    return int(client.operation("stats")["requests"]["running"])


@pytest.fixture
def baseline(client: GenerateClient) -> Iterator[dict[str, int]]:
    """The pages held before the test; after it the pages must add up."""
    held = client.num_held_pages()
    yield held
    assert client.operation("health")["integrity_error"] is None


def check_nothing_held(client: GenerateClient, baseline: dict[str, int]) -> None:
    """The client's leaving is noticed between two steps, at some time after it."""
    wait_until(lambda: client.operation("stats")["requests"] == IDLE)
    assert client.num_held_pages() == baseline


@pytest.mark.parametrize("stream", [True, False])
def test_cancelled_by_its_grpc_client(client: GenerateClient, baseline: dict[str, int], stream: bool) -> None:
    with client.stream(endless(stream)) as responses:
        if stream:
            responses.next_response()
        wait_until(lambda: num_running(client) == 1)
        wait_until(lambda: client.num_held_pages() != baseline)
        responses.cancel()
        check_nothing_held(client, baseline)


def test_timed_out_at_its_grpc_client(client: GenerateClient, baseline: dict[str, int]) -> None:
    with client.stream(endless(), timeout_s=1.5) as responses:
        with pytest.raises(Refused, match="Deadline Exceeded"):
            list(responses)
        check_nothing_held(client, baseline)


def test_dropped_connection_of_generate_stream(client: GenerateClient, baseline: dict[str, int]) -> None:
    with client.post("generate_stream", endless()) as response:
        next(events(response))
        assert client.num_held_pages() != baseline
    check_nothing_held(client, baseline)


def test_cancelled_by_request_id(client: GenerateClient, baseline: dict[str, int]) -> None:
    with client.stream(endless(), request_id="cancel-me") as responses:
        responses.next_response()
        assert client.operation("cancel", request_id="cancel-me") == {"cancelled": 1}
        with pytest.raises(Refused, match=r"^The request was cancelled\. "):
            list(responses)
        # By the time that the client is told, the pages are free.
        assert client.operation("stats")["requests"] == IDLE
        assert client.num_held_pages() == baseline


def test_cancelled_by_the_id_in_a_generate_body(client: GenerateClient, baseline: dict[str, int]) -> None:
    with ThreadPoolExecutor(1) as other:
        answer = other.submit(client.generate, **endless(stream=False), id="cancel-me-too")
        wait_until(lambda: num_running(client) == 1)
        assert client.operation("cancel", request_id="cancel-me-too") == {"cancelled": 1}
        with pytest.raises(Refused, match=r"^The request was cancelled\. "):
            answer.result()
    assert client.num_held_pages() == baseline


def test_a_cancelled_turn_keeps_what_was_emitted(client: GenerateClient, baseline: dict[str, int]) -> None:
    fields = endless(session_id="cancelled-turn", return_num_input_tokens=True)
    with client.stream(fields) as responses:
        first = responses.next_response()
        for _ in range(4):
            responses.next_response()
        assert client.operation("cancel", session_id="cancelled-turn") == {"cancelled": 1}
        with pytest.raises(Refused, match="cancelled"):
            list(responses)
    sessions = client.operation("sessions")["sessions"]
    (session,) = (session for session in sessions if session["session_id"] == "cancelled-turn")
    assert session["idle"]
    assert session["num_tokens"] >= first.outputs["num_input_tokens"].item() + 5
    turn: dict[str, Any] = {"text_input": " So", "sampling_parameters": sampling(max_tokens=1)}
    answer = client.generate(**turn, session_id="cancelled-turn", session_length=session["num_tokens"])
    assert answer["num_cached_tokens"] == session["num_tokens"] - 1
    client.operation("close", session_id="cancelled-turn")
    assert client.num_held_pages() == baseline


def test_a_waiting_turn_is_cancelled_alone(client: GenerateClient, baseline: dict[str, int]) -> None:
    name = "waiting-turn"
    with client.stream(endless(session_id=name), request_id="first") as first:
        wait_until(lambda: num_running(client) == 1)
        with client.stream(endless(session_id=name), request_id="second") as second:
            wait_until(lambda: client.operation("stats")["requests"] == {"running": 1, "waiting": 1})
            client.operation("cancel", request_id="second")
            with pytest.raises(Refused, match="cancelled"):
                second.next_response()
        first.next_response()
        client.operation("cancel", session_id=name)
        with pytest.raises(Refused, match="cancelled"):
            list(first)
    assert client.operation("close", session_id=name)["num_tokens"] > 0
    assert client.num_held_pages() == baseline


def test_deadline_ends_a_running_request(client: GenerateClient, baseline: dict[str, int]) -> None:
    with client.stream(endless(deadline_ms=900)) as responses:
        with pytest.raises(Refused, match=r"^The deadline of 900 ms has passed\. "):
            list(responses)
        assert client.num_held_pages() == baseline


def test_others_go_on(client: GenerateClient, baseline: dict[str, int]) -> None:
    fields: dict[str, Value] = {
        "text_input": "one, two, three,",
        "stream": True,
        "sampling_parameters": sampling(max_tokens=12, ignore_eos=True),
    }
    alone = [response.text for response in client.infer(fields)]
    with client.stream(endless(), request_id="neighbour") as cancelled, client.stream(fields) as other:
        cancelled.next_response()
        texts = [other.next_response().text]
        client.operation("cancel", request_id="neighbour")
        texts += [response.text for response in other]
        with pytest.raises(Refused, match="cancelled"):
            list(cancelled)
    assert texts == alone
    assert client.num_held_pages() == baseline


@pytest.mark.parametrize("name", ["request_id", "session_id"])
def test_cancel_of_nothing_is_not_found(client: GenerateClient, name: str) -> None:
    with pytest.raises(Refused, match="No request of that name is waiting or running") as refusal:
        client.operation("cancel", **{name: "cancel-none"})
    assert refusal.value.details == {"code": "NOT_FOUND", "field": name}
