"""`folio` against a real server: what each command prints, as text and as JSON, and how it ends."""

from __future__ import annotations

import argparse
import io
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from folio_client import Client
from folio_client.cli import run
from folio_client.cli_commands import UNHEALTHY, health
from folio_client.cli_output import Output
from tests.client.clients import url_of
from tests.client.scripted_transport import ScriptedTransport
from tests.server.generate_client import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server.running_server import RunningServer

GREEDY = ("--temperature", "0", "--max-tokens", "2")
PROMPT = "The capital of France is"
NOWHERE = "grpc://127.0.0.1:1"


class Folio:
    """The command, run within this process.

    Args:
        url: the server.
        capsys: catches what it prints.
    """

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._url = url
        self._capsys = capsys

    def __call__(self, *arguments: str, url: str | None = None) -> tuple[int, str, str]:
        """The exit code, standard output and standard error."""
        status = run([*arguments, "--url", url or self._url])
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err

    def documents(self, *arguments: str) -> list[Any]:
        """What a command that succeeds prints as JSON, line by line."""
        status, printed, complaints = self(*arguments, "--json")
        assert (status, complaints) == (0, "")
        return [json.loads(line) for line in printed.splitlines()]


@pytest.fixture
def folio(url: str, capsys: pytest.CaptureFixture[str]) -> Folio:
    return Folio(url, capsys)


def test_generate(folio: Folio, monkeypatch: pytest.MonkeyPatch) -> None:
    status, printed, remark = folio("generate", PROMPT, *GREEDY)
    assert (status, printed) == (0, " Paris.\n")
    assert "5 prompt tokens, 0 of them reused, 2 generated" in remark
    (document,) = folio.documents("generate", PROMPT, *GREEDY, "--stop", ".")
    assert (document["text"], document["finish_reason"]) == (" Paris", "stop")
    assert document["usage"]["num_prompt_tokens"] == 5
    monkeypatch.setattr("sys.stdin", io.StringIO(PROMPT))
    assert folio("generate", "-", *GREEDY)[1] == " Paris.\n"


def test_sessions(folio: Folio, url: str) -> None:
    with Client(url) as client, client.session("[bold]listed[/]") as session:
        session.generate(PROMPT, temperature=0, max_tokens=2)
        (listed,) = folio.documents("sessions")
        (entry,) = (entry for entry in listed if entry["session_id"] == "[bold]listed[/]")
        assert (entry["num_tokens"], entry["num_turns"]) == (7, 1)
        status, printed, _ = folio("sessions")
        assert status == 0
        assert ["[bold]listed[/]", "7", "6", "1"] in [line.split() for line in printed.splitlines()]


def test_stats_once_and_watched(folio: Folio) -> None:
    status, printed, _ = folio("stats")
    assert status == 0
    assert {"requests", "sessions", "raw", "sealed", "memory", "codec"} <= {
        line.split()[0] for line in printed.splitlines()
    }
    assert "\x1b" not in printed
    assert [document["codec"] for document in folio.documents("stats")] == ["int8"]
    watched = folio.documents("stats", "--watch", "--count", "3", "--interval", "0.01")
    assert [document["page_size"] for document in watched] == [64] * 3
    assert folio("stats", "--watch", "--count", "2", "--interval", "0.01")[1].count("codec") == 2


def test_health(folio: Folio) -> None:
    assert folio("health", "--wait", "10")[:2] == (0, "healthy\n")
    (document,) = folio.documents("health")
    assert document["is_healthy"] is True


def test_warm_up(folio: Folio) -> None:
    (document,) = folio.documents("warm-up", "--requests", "3", "--concurrency", "2")
    assert (document["num_requests"], document["is_settled"]) == (3, False)
    assert min(document["first_ms"], document["last_ms"]) > 0
    assert folio("warm-up", "--requests", "1")[1].startswith("1 requests, first ")


@pytest.mark.parametrize(
    ("arguments", "status", "kind"),
    [
        (["generate", PROMPT, "--max-tokens", "0"], 2, "InvalidArgument"),
        (["generate", PROMPT, "--max-tokens", "4000", "--ignore-eos", "--timeout", "0.3"], 5, "DeadlineExceeded"),
        (["generate", PROMPT, "--model", "none"], 6, "NotFound"),
        (["health", "--wait", "0.2", "--model", "none"], 5, "DeadlineExceeded"),
        (["stats", "--model", "none"], 6, "NotFound"),
    ],
)
def test_exit_codes(folio: Folio, arguments: list[str], status: int, kind: str) -> None:
    found, _, complaint = folio(*arguments)
    assert found == status
    assert complaint.startswith(f"{kind}: ")
    found, printed, complaint = folio(*arguments, "--json")
    assert (found, complaint) == (status, "")
    assert json.loads(printed)["error"]["kind"] == kind


def test_a_server_that_is_not_there(folio: Folio) -> None:
    status, printed, complaint = folio("stats", url=NOWHERE)
    assert (status, printed) == (3, "")
    assert complaint.startswith("ConnectionFailed: ")


def test_a_server_that_refuses_for_now(vllm_server: RunningServer, folio: Folio) -> None:
    arguments = ("generate", "refused 99 times by folio", "--model", "vllm")
    status, _, complaint = folio(*arguments, url=url_of(vllm_server, "grpc"))
    assert (status, complaint) == (4, "Unavailable: 128 requests wait already.\n")


@pytest.mark.parametrize(
    "arguments", [[], ["everything"], ["generate"], ["stats", "--interval", "0"], ["warm-up", "--requests", "0"]]
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(arguments)
    assert end.value.code == 2
    assert "usage: folio" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--url", "ftp://x"], ["--url", "grpcs://x", "--ca-file", "/nowhere"], ["--url", "https://x", "--key-file", "/"]],
)
def test_a_connection_that_cannot_be_is_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stats", *arguments]) == 2
    assert capsys.readouterr().err.startswith("InvalidArgument: ")


@pytest.mark.parametrize(("answer", "status"), [({"healthy": True}, 0), ({"healthy": False}, UNHEALTHY)])
def test_sickness_has_an_exit_code_of_its_own(
    answer: dict[str, Any], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    transport = ScriptedTransport([{"result": (json.dumps(answer),)}])
    with Client(transport=transport) as client:
        assert health(client, argparse.Namespace(wait=None), Output(is_json=False)) == status
    assert capsys.readouterr().out == ("healthy\n" if status == 0 else "not healthy: no sign of life\n")


def test_help_says_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["--help"])
    listed = capsys.readouterr().out.split("exit codes:")[1]
    assert [int(line.split()[0]) for line in listed.splitlines()[1:10]] == [0, 1, 2, 3, 4, 5, 6, 7, 130]


def started(*arguments: str) -> subprocess.Popen[bytes]:
    """The command as a process of its own."""
    command = [sys.executable, "-m", "folio_client.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_heed_ctrl_c)  # noqa: PLW1509 - the child does no more than that


def _heed_ctrl_c() -> None:
    """A shell starts what runs in its background deaf to Ctrl-C, which children inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_a_generation_here_and_on_the_server(server: RunningServer) -> None:
    url = url_of(server, "grpc")
    with Client(url) as client:
        held = client.admin.stats().num_held_pages
        with started("generate", PROMPT, "--max-tokens", "4000", "--ignore-eos", "--url", url) as process:
            assert process.stdout is not None
            assert process.stdout.read(1)
            process.send_signal(signal.SIGINT)
            _, complaint = process.communicate()
        assert (process.returncode, complaint) == (130, b"")
        wait_until(lambda: client.admin.stats().num_held_pages == held)


def test_watching_ends_with_ctrl_c_and_with_its_reader(server: RunningServer) -> None:
    arguments = ("stats", "--watch", "--json", "--url", url_of(server, "grpc"))
    # Ctrl-C meets it between two looks, which is where it is nearly all of the time.
    with started(*arguments, "--interval", "3600") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["codec"] == "int8"
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate()
    assert (process.returncode, complaint) == (0, b"")
    with started(*arguments, "--interval", "0.01") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)


def test_what_is_not_a_file_is_no_transcript(folio: Folio, tmp_path: Path) -> None:
    status, _, complaint = folio("chat", "--transcript", str(tmp_path))
    assert status == 2
    assert "transcript" in complaint
