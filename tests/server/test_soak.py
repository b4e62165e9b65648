"""Minutes of everything at once: fuzz, cancelled streams and sessions, ending with memory flat and pages intact.

`make soak` runs it; SOAK_S sets how long (300 seconds unless told).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.fuzz import SESSION_IDS, cases
from tests.server.generate_client import GenerateClient, sampling
from tests.server.grpc_stream import Refused, Value
from tests.server.running_server import RunningServer
from tests.server.test_fuzz import SEED, Fuzzer, stub_processes

DECK = 100
MOST_GROWTH_MB = 64
"""Resident memory that the second half of a soak may add: allocators settle in the first."""


@pytest.fixture
def fuzzer(server: RunningServer) -> Iterator[Fuzzer]:
    """A fuzzer of the running server."""
    fuzzer = Fuzzer(server)
    yield fuzzer
    fuzzer.close()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_memory_stays_flat_and_pages_stay_intact(
    server: RunningServer, fuzzer: Fuzzer, capsys: pytest.CaptureFixture[str]
) -> None:
    client = GenerateClient(server)
    deck = cases(SEED)
    readings: list[tuple[float, float]] = []
    ends_s = time.monotonic() + float(os.environ.get("SOAK_S", "300"))
    for turn in itertools.count():
        problems = fuzzer.problems(list(itertools.islice(deck, DECK)))
        assert not problems, problems[:5]
        _cancelled_stream(client)
        _conversation(client, f"soak-{turn % 20}")
        readings.append((time.monotonic(), _resident_mb(server)))
        with capsys.disabled():
            print(f"\r{DECK * (turn + 1)} requests, {readings[-1][1]:.0f} MB", end="", flush=True)  # noqa: T201
        if time.monotonic() > ends_s:
            break
    for session_id in [*SESSION_IDS, *(f"soak-{index}" for index in range(20))]:
        _close(client, session_id)
    assert client.operation("health")["healthy"], "the pages do not add up"
    assert client.num_held_pages() == {"raw": 0, "sealed": 0}
    assert client.operation("stats")["recompilations"] == 0
    middle = readings[len(readings) // 2]
    growth_mb = readings[-1][1] - middle[1]
    with capsys.disabled():
        minutes = (readings[-1][0] - middle[0]) / 60
        print(f"\nmemory grew by {growth_mb:.1f} MB in the last {minutes:.1f} minutes")  # noqa: T201
    assert growth_mb < MOST_GROWTH_MB


def _cancelled_stream(client: GenerateClient) -> None:
    fields: dict[str, Value] = {
        "text_input": "Tell me everything",
        "stream": True,
        "sampling_parameters": sampling(max_tokens=200),
    }
    with client.stream(fields) as stream:
        stream.next_response()
        stream.cancel()


def _conversation(client: GenerateClient, session_id: str) -> None:
    for text in ("Hello there. ", "And then? "):
        client.infer({"text_input": text, "session_id": session_id, "sampling_parameters": sampling(max_tokens=8)})


def _close(client: GenerateClient, session_id: str) -> None:
    with contextlib.suppress(Refused):  # the fuzz may never have begun it
        client.operation("close", session_id=session_id)


def _resident_mb(server: RunningServer) -> float:
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in stub_processes(server))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
