"""Conversations that the server remembers: a turn sends its new text alone, and the history is not computed again."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.server.generate_client import sampling
from tests.server.grpc_stream import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.server.generate_client import GenerateClient

# More than one page of 64 tokens, so that pages are sealed and shared.
LONG_TEXT = "Once upon a time there was a small town by the sea. " * 6
SYSTEM = {"role": "system", "content": "Answer in one word."}


@pytest.fixture
def session_id(client: GenerateClient, request: pytest.FixtureRequest) -> Iterator[str]:
    """A session of the test's own, ended after it."""
    name = f"sessions-{request.node.name}"
    yield name
    with suppress(Refused):
        client.operation("close", session_id=name)


def turn(client: GenerateClient, session_id: str, text: str, **fields: Any) -> dict[str, Any]:
    """Two tokens of an answer to a text in a session."""
    return answer(client, text, session_id=session_id, **fields)


def answer(client: GenerateClient, text: str, **fields: Any) -> dict[str, Any]:
    """Two tokens of an answer to a text."""
    options = {"exclude_input_in_output": True, "return_num_input_tokens": True}
    parameters = sampling(max_tokens=2, ignore_eos=True)
    return client.generate(**{"text_input": text, "sampling_parameters": parameters, **options, **fields})


def chat(client: GenerateClient, session_id: str, messages: list[dict[str, str]]) -> dict[str, Any]:
    """An answer to the messages so far, up to its end."""
    return client.generate(
        messages=json.dumps(messages),
        session_id=session_id,
        sampling_parameters=sampling(max_tokens=4),
        exclude_input_in_output=True,
        return_num_input_tokens=True,
    )


def described(client: GenerateClient, session_id: str) -> dict[str, Any]:
    """What `op: sessions` says of a session."""
    sessions = client.operation("sessions")["sessions"]
    (description,) = (session for session in sessions if session["session_id"] == session_id)
    assert isinstance(description, dict)
    return description


def test_three_turns_compute_only_what_is_new(client: GenerateClient, session_id: str) -> None:
    texts = (LONG_TEXT, " The people there", " In the end")
    answers = [turn(client, session_id, text) for text in texts]
    num_alone = [answer(client, text)["num_input_tokens"] for text in texts]
    num_tokens = 0
    for found, num_new in zip(answers, num_alone, strict=True):
        # The last sampled token of a turn has no KV until the next one.
        assert found["num_cached_tokens"] == max(0, num_tokens - 1)
        assert found["num_input_tokens"] == num_tokens + num_new
        num_tokens += num_new + 2
    assert described(client, session_id)["num_tokens"] == num_tokens
    assert described(client, session_id)["num_turns"] == 3


def test_a_session_answers_as_one_whole_prompt_does(client: GenerateClient, session_id: str) -> None:
    first = turn(client, session_id, "The capital of France is")
    assert first["text_output"] == " Paris."
    second = turn(client, session_id, " The capital of Germany is")
    # Cut at word borders, the ids of the two are those of the whole.
    whole = answer(client, "The capital of France is Paris. The capital of Germany is")
    assert second["text_output"] == whole["text_output"]
    assert second["num_input_tokens"] == whole["num_input_tokens"]


def test_the_echo_in_a_session_is_the_new_text(client: GenerateClient, session_id: str) -> None:
    first = turn(client, session_id, "The capital of France is", exclude_input_in_output=False)
    second = turn(client, session_id, " And then", exclude_input_in_output=False)
    assert first["text_output"] == "The capital of France is Paris."
    assert second["text_output"].startswith(" And then")


@pytest.mark.parametrize("believed", [0, 3, 8])
def test_a_wrong_session_length_is_refused_and_changes_nothing(
    client: GenerateClient, session_id: str, believed: int
) -> None:
    turn(client, session_id, "The capital of France is", session_length=0)
    before = described(client, session_id)
    assert before["num_tokens"] == 7
    with pytest.raises(Refused) as refusal:
        turn(client, session_id, " lost", session_length=believed)
    assert refusal.value.text.startswith(f"session_length is {believed} but the session holds 7 tokens.")
    assert refusal.value.details == {"code": "INVALID_ARG", "field": "session_length", "allowed": "7"}
    assert described(client, session_id) == before
    assert turn(client, session_id, " The", session_length=7)["num_cached_tokens"] == 6


def test_a_refused_first_turn_leaves_no_session(client: GenerateClient, session_id: str) -> None:
    with pytest.raises(Refused, match="session_length is 5 but the session holds 0"):
        turn(client, session_id, "Hello", session_length=5)
    with pytest.raises(Refused, match="There is no such session"):
        client.operation("close", session_id=session_id)


def test_messages_reuse_what_they_share_with_the_session(client: GenerateClient, session_id: str) -> None:
    messages = [SYSTEM, {"role": "user", "content": LONG_TEXT}]
    first = chat(client, session_id, messages)
    assert first["num_cached_tokens"] == 0
    messages += [{"role": "assistant", "content": first["text_output"]}, {"role": "user", "content": "Where?"}]
    second = chat(client, session_id, messages)
    assert second["num_cached_tokens"] >= first["num_input_tokens"] - 1
    changed = [SYSTEM, {"role": "user", "content": LONG_TEXT + "The end."}]
    third = chat(client, session_id, changed)
    assert 64 <= third["num_cached_tokens"] < first["num_input_tokens"]
    assert third["num_input_tokens"] < second["num_input_tokens"]
    num_tokens = described(client, session_id)["num_tokens"]
    assert third["num_input_tokens"] < num_tokens <= third["num_input_tokens"] + 4


def test_a_fork_goes_its_own_way(client: GenerateClient, session_id: str) -> None:
    first = turn(client, session_id, LONG_TEXT)
    fork_id = f"{session_id}-fork"
    fork = client.operation("fork", session_id=session_id, new_session_id=fork_id)
    assert fork["num_tokens"] == described(client, session_id)["num_tokens"] == first["num_input_tokens"] + 2
    answers = [turn(client, name, " Then a stranger came") for name in (session_id, fork_id)]
    assert answers[0]["text_output"] == answers[1]["text_output"]
    assert {found["num_cached_tokens"] for found in answers} == {fork["num_tokens"] - 1}
    turn(client, fork_id, " and left")
    assert described(client, fork_id)["num_tokens"] > described(client, session_id)["num_tokens"]
    client.operation("close", session_id=session_id)
    assert turn(client, fork_id, " again")["num_cached_tokens"] > fork["num_tokens"]
    client.operation("close", session_id=fork_id)


def test_truncate_forgets_the_end(client: GenerateClient, session_id: str) -> None:
    first = turn(client, session_id, "The capital of France is")
    turn(client, session_id, " Berlin, they say,")
    assert client.operation("truncate", session_id=session_id, num_tokens=5)["num_tokens"] == 5
    again = turn(client, session_id, " not")
    assert (again["num_input_tokens"], again["num_cached_tokens"]) == (6, 5)
    client.operation("truncate", session_id=session_id, num_tokens=4)
    assert turn(client, session_id, " is")["text_output"] == first["text_output"]
    with pytest.raises(Refused, match="num_tokens is 100 but the session holds 7") as refusal:
        client.operation("truncate", session_id=session_id, num_tokens=100)
    assert refusal.value.details == {"code": "INVALID_ARG", "field": "num_tokens", "allowed": "0 to 7"}


def test_truncate_below_a_sealed_page_computes_its_tail_again(client: GenerateClient, session_id: str) -> None:
    turn(client, session_id, LONG_TEXT * 3)
    client.operation("truncate", session_id=session_id, num_tokens=150)
    found = turn(client, session_id, " So")
    assert (found["num_input_tokens"], found["num_cached_tokens"]) == (151, 128)


def test_closed_is_gone_with_its_pages(client: GenerateClient, session_id: str) -> None:
    before = client.operation("stats")
    turn(client, session_id, LONG_TEXT.replace("town", session_id))
    assert client.operation("stats")["sessions"] == before["sessions"] + 1
    assert client.operation("stats")["pages"] != before["pages"]
    client.operation("close", session_id=session_id)
    after = client.operation("stats")
    assert (after["sessions"], after["pages"]) == (before["sessions"], before["pages"])


@pytest.mark.parametrize(
    ("op", "arguments"),
    [("close", {}), ("fork", {"new_session_id": "sessions-new"}), ("truncate", {"num_tokens": 0})],
)
def test_operations_on_no_session_are_not_found(client: GenerateClient, op: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="There is no such session") as refusal:
        client.operation(op, session_id="sessions-none", **arguments)
    assert refusal.value.details == {"code": "NOT_FOUND", "field": "session_id"}


def test_a_fork_never_replaces_a_session(client: GenerateClient, session_id: str) -> None:
    turn(client, session_id, "Hello")
    with pytest.raises(Refused, match="There is a session of the new name already") as refusal:
        client.operation("fork", session_id=session_id, new_session_id=session_id)
    assert refusal.value.details["field"] == "new_session_id"


@pytest.mark.parametrize("sequence_id", ["sessions-sequence", 4711])
def test_the_sequence_id_is_a_session(client: GenerateClient, sequence_id: str | int) -> None:
    fields = {"text_input": "The capital of France is", "sampling_parameters": sampling(max_tokens=2)}
    for num_cached in (0, 6):
        (response,) = client.infer(fields, sequence_id=sequence_id)
        assert response.outputs["num_cached_tokens"].tolist() == [num_cached]
    assert client.operation("close", session_id=str(sequence_id))["num_tokens"] == 14


def test_two_choices_in_a_session_are_refused(client: GenerateClient, session_id: str) -> None:
    with pytest.raises(Refused) as refusal:
        turn(client, session_id, "Hello", sampling_parameters=sampling(n=2))
    assert refusal.value.details["field"] == "n"
    with pytest.raises(Refused):
        client.operation("close", session_id=session_id)
