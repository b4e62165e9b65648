"""Thousands of good and bad requests, many at once: each is answered properly and nothing is left behind."""

from __future__ import annotations

import http.client
import itertools
import queue
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import grpc
import pytest

from tests.server.fuzz import SESSION_IDS, Case, Outcome, Wire, cases, deck_size
from tests.server.fuzz_wire import Client, problem
from tests.server.generate_client import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SEED = 20_240_917
NUM_REQUESTS = 2_400
NUM_WORKERS = 8


class Server(Protocol):
    """A running server: host:port of each protocol."""

    http_address: str
    grpc_address: str


class Fuzzer:
    """Sends cases from several threads, each over connections of its own.

    Args:
        server: where to.
    """

    def __init__(self, server: Server) -> None:
        self._clients = [Client(server.http_address, server.grpc_address) for _ in range(NUM_WORKERS)]
        self._idle: queue.SimpleQueue[Client] = queue.SimpleQueue()
        for client in self._clients:
            self._idle.put(client)

    def close(self) -> None:
        """Ends every connection."""
        for client in self._clients:
            client.close()

    def problems(self, deck: Sequence[Case]) -> list[str]:
        """Sends every case; returns what was wrong, a line for each."""
        with ThreadPoolExecutor(NUM_WORKERS) as pool:
            return [line for line in pool.map(self._problem, deck) if line is not None]

    def _problem(self, case: Case) -> str | None:
        client = self._idle.get()
        try:
            found = problem(case, client.send(case))
        except (OSError, http.client.HTTPException, grpc.RpcError, ValueError) as error:
            found = f"no proper answer: {type(error).__name__}"
            client.reconnect()
        finally:
            self._idle.put(client)
        return None if found is None else f"{case.name} over {case.wire.value}: {found}"


@pytest.fixture
def fuzzer(server: Server) -> Iterator[Fuzzer]:
    """A fuzzer of the running server."""
    fuzzer = Fuzzer(server)
    yield fuzzer
    fuzzer.close()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """One client of the running server."""
    client = Client(server.http_address, server.grpc_address)
    yield client
    client.close()


def test_bad_requests_are_refused_and_leave_nothing_behind(
    server: Server, fuzzer: Fuzzer, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    stubs = stub_processes(server)
    assert stubs
    wait_until(lambda: client.run_operation(op="stats")["requests"] == {"running": 0, "waiting": 0})
    baseline = page_counts(client)
    requests, sent, problems = cases(SEED), Counter[str](), list[str]()
    while sent.total() < NUM_REQUESTS:
        deck = list(itertools.islice(requests, deck_size()))
        problems += fuzzer.problems(deck)
        sent.update(case.outcome.value for case in deck)
        with capsys.disabled():
            sys.stdout.write(f"\nfuzz: {sent.total()} of {NUM_REQUESTS} requests, {len(problems)} problems")
            sys.stdout.flush()
    assert problems == []
    assert stub_processes(server) == stubs
    close_sessions(client)
    left = page_counts(client)
    assert (num_held(left), num_pages(left)) == (num_held(baseline), num_pages(baseline))
    good = Case("good", Wire.GENERATE, Outcome.GOOD, body=b'{"text_input": "Hello", "max_tokens": 4}')
    assert problem(good, client.send(good)) is None


def test_a_seed_gives_the_same_requests_again() -> None:
    first, second = (list(itertools.islice(cases(SEED), deck_size())) for _ in range(2))
    assert first == second
    assert first != list(itertools.islice(cases(SEED + 1), deck_size()))
    assert max(len(case.body) for case in first) < 3_500_000


def page_counts(client: Client) -> dict[str, dict[str, int]]:
    """How many pages of each kind are in each state: kind to state to number."""
    pages: dict[str, dict[str, int]] = client.run_operation(op="stats")["pages"]
    assert pages.keys() == {"raw", "sealed"}
    return pages


def num_held(pages: dict[str, dict[str, int]]) -> dict[str, int]:
    """How many pages of each kind a request or a session holds."""
    return {kind: states["held"] for kind, states in pages.items()}


def num_pages(pages: dict[str, dict[str, int]]) -> dict[str, int]:
    """How many pages of each kind there are in all states."""
    return {kind: sum(states.values()) for kind, states in pages.items()}


def close_sessions(client: Client) -> None:
    """Ends the sessions that good requests began."""
    for session_id in SESSION_IDS:
        client.run_operation(op="close", session_id=session_id)


def stub_processes(server: Server) -> frozenset[int]:
    """The process ids of this server's stubs: children of the process that was given its HTTP port."""
    port = server.http_address.rpartition(":")[2]
    commands = {int(path.parent.name): _command(path) for path in Path("/proc").glob("[0-9]*/cmdline")}
    return frozenset(
        process_id
        for process_id, command in commands.items()
        if command[:1] and command[0].endswith("triton_python_backend_stub")
        if f"--http-port={port}" in commands.get(_parent(process_id), ())
    )


def _command(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text(encoding="utf-8", errors="replace").split("\0"))
    except OSError:  # the process ended meanwhile
        return ()


def _parent(process_id: int) -> int:
    try:
        status = Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # the process ended meanwhile
        return 0
    return int(status.rpartition(")")[2].split()[1])
