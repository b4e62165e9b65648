"""How requests are carried out: repeated, timed, cancelled and observed, by both clients, without a wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from folio_client import (
    ConnectionFailed,
    FolioError,
    IncompleteResponse,
    InvalidArgument,
    RetryPolicy,
    ServerError,
    Unavailable,
    Unsupported,
)
from tests.client.clients import opened_client
from tests.client.scripted_transport import AsyncScriptedTransport, ScriptedTransport, piece

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from folio_client.observer import Kind, RequestEnd
    from folio_client.wire import Outputs

HELLO = (piece("Hel"), piece("lo", "stop"))
BUSY = Unavailable("busy", retry_after_ms=2)
LOST = ConnectionFailed("lost")
# Waits of at most a few milliseconds.
QUICK = RetryPolicy(first_delay_s=0.002, max_delay_s=0.004)


class Witness:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.ends: list[RequestEnd] = []
        self.retries: list[FolioError] = []

    def on_end(self, end: RequestEnd) -> None:
        """See `Observer`."""
        self.ends.append(end)

    def on_retry(self, kind: Kind, model: str, error: FolioError) -> None:
        """See `Observer`."""
        assert (kind, model) == ("generate", "smollm2")
        self.retries.append(error)


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
def client_of(style: str, witness: Witness) -> Iterator[Callable[[ScriptedTransport], Any]]:
    """Makes a client of a scripted server."""
    opened = []

    def make(transport: ScriptedTransport) -> Any:
        used = transport if style == "sync" else AsyncScriptedTransport(transport)
        context = opened_client("grpc://nowhere", style, transport=used, retry=QUICK, observer=witness)
        opened.append(context)
        return context.__enter__()

    yield make
    for context in opened:
        context.__exit__(None, None, None)


def test_a_refused_generation_is_asked_for_again(client_of: Any, witness: Witness) -> None:
    transport = ScriptedTransport([BUSY], [BUSY], HELLO)
    result = client_of(transport).generate("Hi")
    assert (result.text, result.finish_reason) == ("Hello", "stop")
    assert len(transport.calls) == 3
    assert witness.retries == [BUSY, BUSY]
    assert len({call.request_id for call in transport.calls}) == 1


def test_it_ends_with_the_last_refusal(client_of: Any, witness: Witness) -> None:
    transport = ScriptedTransport([BUSY])
    with pytest.raises(Unavailable, match="busy"):
        client_of(transport).generate("Hi")
    assert len(transport.calls) == QUICK.max_attempts
    assert witness.ends[0].error is BUSY


def test_no_repetition_would_end_after_the_deadline(client_of: Any) -> None:
    transport = ScriptedTransport([Unavailable("busy", retry_after_ms=60_000)])
    with pytest.raises(Unavailable):
        client_of(transport).generate("Hi", timeout_s=30)
    assert len(transport.calls) == 1


@pytest.mark.parametrize("timeout_s", [0, -1.0, float("nan"), float("inf")])
def test_a_deadline_that_is_none_is_refused(client_of: Any, timeout_s: float) -> None:
    transport = ScriptedTransport(HELLO)
    client = client_of(transport)
    asked: tuple[Callable[[], Any], ...] = (
        lambda: client.generate("Hi", timeout_s=timeout_s),
        lambda: client.admin.stats(timeout_s=timeout_s),
        lambda: client.wait_ready(timeout_s),
    )
    for ask in asked:
        with pytest.raises(InvalidArgument) as refusal:
            ask()
        assert refusal.value.field == "timeout_s"
    assert not transport.calls


def test_each_repetition_has_less_time(client_of: Any) -> None:
    transport = ScriptedTransport([BUSY], HELLO)
    client_of(transport).generate("Hi", timeout_s=10)
    first, second = (call.timeout_s for call in transport.calls)
    assert 10 >= first > second + 0.002
    deadlines_ms = [int(call.fields["deadline_ms"]) for call in transport.calls]
    assert deadlines_ms[0] > deadlines_ms[1]


@pytest.mark.parametrize("error", [BUSY, LOST, ServerError("no")])
def test_nothing_is_repeated_once_text_has_come(client_of: Any, error: FolioError) -> None:
    transport = ScriptedTransport([piece("Hel"), error])
    with pytest.raises(type(error)):
        client_of(transport).generate("Hi")
    assert len(transport.calls) == 1


def test_a_lost_connection_is_repeated_where_that_does_no_harm(client_of: Any) -> None:
    transport = ScriptedTransport([LOST], HELLO)
    assert client_of(transport).generate("Hi").text == "Hello"
    transport = ScriptedTransport([LOST], HELLO)
    with pytest.raises(ConnectionFailed):
        client_of(transport).chat([{"role": "user", "content": "Hi"}], "a session of unknown length")


def test_a_session_says_its_length_and_so_may_repeat_a_turn(client_of: Any) -> None:
    transport = ScriptedTransport([LOST], HELLO, [LOST], HELLO)
    session = client_of(transport).session("s")
    session.generate("Hi")
    assert session.length == 12
    session.generate("again")
    assert [call.fields["session_length"] for call in transport.calls] == [0, 0, 12, 12]


@pytest.mark.parametrize(
    ("scripts", "length"),
    [
        ([[InvalidArgument("no")]], 0),
        ([[BUSY]], 0),
        ([[LOST]], None),
        ([[piece("Hel"), LOST]], None),
        ([[piece("Hel")]], None),
        # The first of them may have been carried out: its repetition is then refused.
        ([[LOST], [InvalidArgument("session_length is 0")]], None),
        ([[LOST], [BUSY]], None),
    ],
)
def test_a_session_knows_when_it_does_not_know_its_length(client_of: Any, scripts: Any, length: int | None) -> None:
    session = client_of(ScriptedTransport(*scripts)).session("s")
    with pytest.raises(FolioError):
        session.generate("Hi")
    assert session.length == length


def test_leaving_a_turn_cancels_it_and_its_length_is_not_known(client_of: Any, witness: Witness) -> None:
    transport = ScriptedTransport(HELLO)
    session = client_of(transport).session("s")
    with session.stream("Hi") as stream:
        assert next(stream).text == "Hel"
    assert (transport.num_cancelled, session.length) == (1, None)
    (end,) = witness.ends
    assert end.is_left
    session.generate("again")
    assert session.length == 12
    assert "session_length" not in transport.calls[1].fields


@pytest.mark.parametrize("script", [[], [piece("Hel")]])
def test_an_answer_that_breaks_off_is_an_error(client_of: Any, script: list[Outputs]) -> None:
    with pytest.raises(IncompleteResponse):
        client_of(ScriptedTransport(script)).generate("Hi")


def test_what_a_generation_took(client_of: Any, witness: Witness) -> None:
    stream = client_of(ScriptedTransport(HELLO)).stream("Hi")
    deltas = list(stream)
    usage = stream.result.usage
    assert [(delta.text, delta.num_tokens, delta.finish_reason) for delta in deltas] == [
        ("Hel", 1, None),
        ("lo", 1, "stop"),
    ]
    assert (usage.num_prompt_tokens, usage.num_cached_tokens, usage.num_generated_tokens) == (10, 4, 2)
    assert 0 < usage.first_token_s == deltas[0].received_s <= deltas[1].received_s <= usage.total_s
    assert witness.ends[0].usage == usage


def test_nothing_is_sent_that_the_model_does_not_have(client_of: Any) -> None:
    transport = ScriptedTransport(HELLO)
    transport.input_names = lambda model, timeout_s: frozenset({"text_input", "stream", model, str(timeout_s)})  # type: ignore[method-assign]
    client = client_of(transport)
    client.generate("Hi")
    assert transport.calls[0].fields.keys() == {"text_input", "stream"}
    for ask in (
        lambda: client.generate("Hi", max_tokens=3),
        lambda: client.generate("Hi", priority=1),
        lambda: client.session().generate("Hi"),
        lambda: client.chat([{"role": "user", "content": "Hi"}]),
        client.admin.stats,
    ):
        with pytest.raises(Unsupported, match="smollm2 has no input"):
            ask()
    assert len(transport.calls) == 1
