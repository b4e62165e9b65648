"""`folio-demo` with a server that runs already: the conversation, and the table of what the cache did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from folio_client import Client, FolioError, demo
from folio_client.demo import QUESTIONS, run
from tests.client.clients import url_of

if TYPE_CHECKING:
    from tests.server.running_server import RunningServer


def test_the_second_turn_reuses_the_first(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(demo.SAMPLING, "max_tokens", 8)
    url = url_of(server, "grpc")
    with Client(url) as client:
        before = client.admin.sessions()
        run(["--url", url])
        assert client.admin.sessions() == before
    printed = capsys.readouterr().out
    for question in QUESTIONS:
        assert f"\n> {question}\n\n" in printed
    rows = {line[:24].strip(): line[24:].split() for line in printed.splitlines()}
    prompts, reused = ([int(count) for count in rows[name][:2]] for name in ("prompt tokens", "of them reused"))
    assert reused[1] >= prompts[0]
    assert prompts[1] > reused[1]


def test_an_address_alone_is_grpc(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FolioError, match="unknown model"):
        run(["--url", server.grpc_address, "--model", "none"])
    assert "turn" not in capsys.readouterr().out
