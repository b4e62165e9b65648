"""`folio chat` against a real server: turns, forks, and what is kept."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from folio_client import Client, NotFound
from folio_client.cli import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GREEDY = ("--temperature", "0", "--max-tokens", "3")


@pytest.fixture
def chat(url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Holds a conversation of the given lines; returns the exit code."""

    def hold(lines: list[str], *arguments: str) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return run(["chat", *GREEDY, *arguments, "--url", url])

    return hold


@pytest.fixture
def documents(chat: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Callable[..., list[Any]]:
    """Holds a conversation; returns the documents that it prints."""

    def hold(lines: list[str], *arguments: str) -> list[Any]:
        assert chat(lines, "--json", *arguments) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return [json.loads(line) for line in captured.out.splitlines()]

    return hold


def session_ids(url: str) -> set[str]:
    with Client(url) as client:
        return {info.session_id for info in client.admin.sessions()}


def test_a_conversation_computes_only_what_is_new(documents: Callable[..., list[Any]], url: str) -> None:
    first, second = documents(["Say hi.", "", "Again."], "--session", "remembered", "--system", "Be kind.")
    assert first["session_id"] == second["session_id"] == "remembered"
    assert second["usage"]["num_cached_tokens"] >= first["usage"]["num_prompt_tokens"] - 1
    assert second["usage"]["num_prompt_tokens"] > first["usage"]["num_prompt_tokens"]
    assert "remembered" not in session_ids(url)


def test_text_for_people(chat: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert chat(["Say hi.", "/stats", "/help", "/nonsense", "/quit", "never read"]) == 0
    captured = capsys.readouterr()
    answer, *_ = captured.out.splitlines()
    assert answer.strip()
    assert "codec" in captured.out
    assert "/fork [NAME]" in captured.out
    assert "There is no command /nonsense" in captured.err
    assert captured.err.count("prompt tokens") == 1
    assert "\x1b" not in captured.out + captured.err


def test_a_fork_goes_its_own_way(documents: Callable[..., list[Any]]) -> None:
    first, fork, second, stats = documents(["Say hi.", "/fork branch", "Again.", "/stats"], "--session", "trunk")
    assert (first["session_id"], second["session_id"]) == ("trunk", "branch")
    assert fork == {"session_id": "branch", "forked_from": "trunk"}
    assert second["usage"]["num_cached_tokens"] >= first["usage"]["num_prompt_tokens"] - 1
    assert stats["codec"] == "int8"


def test_a_failed_turn_leaves_the_conversation_as_it_was(documents: Callable[..., list[Any]]) -> None:
    half = "\ud800"
    failure, answer = documents([half, "Say hi."])
    assert failure["error"]["field"] == "messages"
    assert answer["text"]


def test_a_kept_session_and_its_transcript_are_continued(
    documents: Callable[..., list[Any]], url: str, tmp_path: Path
) -> None:
    kept = ("--session", "kept", "--keep", "--transcript", str(tmp_path / "chat.json"))
    (first,) = documents(["Say hi."], *kept)
    assert "kept" in session_ids(url)
    (second,) = documents(["Again."], *kept)
    assert second["usage"]["num_cached_tokens"] >= first["usage"]["num_prompt_tokens"] - 1
    messages = json.loads((tmp_path / "chat.json").read_text(encoding="utf-8"))
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert (messages[1]["content"], messages[3]["content"]) == (first["text"], second["text"])
    with Client(url) as client:
        client.admin.close("kept")
        with pytest.raises(NotFound):
            client.admin.close("kept")


@pytest.mark.parametrize("content", ["{", "[1]", '[{"role": "user"}]', "{}", '"text"', '[{"role": 1, "content": "x"}]'])
def test_what_is_no_transcript_is_refused(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "chat.json"
    path.write_text(content, encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("Say hi.\n"))
    assert run(["chat", "--transcript", str(path), "--url", "grpc://127.0.0.1:1", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["field"] == "transcript"
    assert path.read_text(encoding="utf-8") == content
