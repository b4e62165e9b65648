"""Sessions and admin operations of a real server, over both protocols and with both clients."""

from __future__ import annotations

from typing import Any

import pytest

from folio_client import AlreadyExists, InvalidArgument, NotFound, SessionInfo

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 2, "ignore_eos": True}


def test_turns_compute_only_what_is_new(client: Any) -> None:
    with client.session() as session:
        first = session.generate("The capital of France is", **GREEDY)
        assert (first.text, session.length) == (" Paris.", 7)
        second = session.generate(" The capital of Germany is", **GREEDY)
        # The last sampled token of a turn has no keys and values until the next one.
        assert second.usage.num_cached_tokens == 6
        assert session.length == second.usage.num_prompt_tokens + 2
        (info,) = (info for info in client.admin.sessions() if info.session_id == session.session_id)
        assert info == SessionInfo(session.session_id, session.length, session.length - 1, num_turns=2, is_idle=True)
    assert session.session_id not in {info.session_id for info in client.admin.sessions()}


def test_chat_sends_all_and_computes_what_is_new(client: Any) -> None:
    messages = [{"role": "user", "content": "Say hi."}]
    with client.session() as session:
        first = client.chat(messages, session, **GREEDY)
        messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "Again."}]
        second = session.chat(messages, **GREEDY)
        assert second.usage.num_cached_tokens >= first.usage.num_prompt_tokens - 1
        assert session.length == second.usage.num_prompt_tokens + 2


def test_a_kept_session_is_resumed(client: Any) -> None:
    with client.session(keep=True) as session:
        session.generate("The capital of France is", **GREEDY)
    with client.session(session.session_id, resume=True) as resumed:
        assert resumed.length == 7
        assert resumed.generate(" The", **GREEDY).usage.num_cached_tokens == 6
    gone = client.session(session.session_id)
    with pytest.raises(NotFound):
        gone.resume()


def test_a_turn_sent_twice_is_refused_the_second_time(client: Any) -> None:
    with client.session() as session:
        twice = [session.stream("Hello", **GREEDY) for _ in range(2)]
        assert twice[0].collect().text
        with pytest.raises(InvalidArgument) as refusal:
            twice[1].collect()
        assert (refusal.value.field, refusal.value.allowed) == ("session_length", str(session.resume().num_tokens))
        assert session.generate(" again", **GREEDY).text


def test_a_new_session_of_a_taken_name_is_refused(client: Any) -> None:
    with client.session() as session:
        session.generate("Hello", **GREEDY)
        with pytest.raises(InvalidArgument, match="session_length is 0"):
            client.session(session.session_id, keep=True).generate("Hello", **GREEDY)
        with pytest.raises(AlreadyExists):
            session.fork(session.session_id)


def test_fork_and_truncate(client: Any) -> None:
    with client.session() as session:
        session.generate("The capital of France is", **GREEDY)
        with session.fork() as fork:
            assert fork.length == session.length == 7
            fork.generate(" of", **GREEDY)
            assert fork.length == 10
            assert fork.truncate(5).num_tokens == fork.length == 5
            assert fork.generate(" not", **GREEDY).usage.num_cached_tokens == 5
        assert session.generate(" So", **GREEDY).usage.num_prompt_tokens == 8
        with pytest.raises(InvalidArgument, match="num_tokens is 1000"):
            session.truncate(1000)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("close", {"session_id": "none"}),
        ("fork", {"session_id": "none", "new_session_id": "new"}),
        ("truncate", {"session_id": "none", "num_tokens": 0}),
        ("cancel", {"request_id": "none"}),
        ("cancel", {"session_id": "none"}),
    ],
)
def test_operations_on_nothing(client: Any, name: str, arguments: Any) -> None:
    with pytest.raises(NotFound):
        getattr(client.admin, name)(**arguments)


def test_stats_and_health(client: Any) -> None:
    stats, health = client.admin.stats(), client.admin.health()
    assert (stats.codec, stats.page_size) == ("int8", 64)
    assert stats.pages.keys() == {"raw", "sealed"}
    assert stats.bytes_per_token < stats.bytes_per_token_fp16
    assert (stats.num_running_requests, stats.num_waiting_requests) == (0, 0)
    assert stats.document["settings"]["codec"] == "int8"
    assert (health.is_healthy, health.integrity_error) == (True, None)
    with pytest.raises(InvalidArgument, match="names no operation"):
        client.admin.run("everything")
