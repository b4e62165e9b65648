"""Generations that end early: the server lets their pages go, whoever ended them, on both protocols."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from folio_client import AsyncClient, Cancelled, Client, DeadlineExceeded
from tests.client.clients import PROTOCOLS, url_of
from tests.server.generate_client import wait_until
from tests.server.grpc_stream import LIMIT_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.server.running_server import RunningServer

# More than one page, so that raw and sealed pages are held.
PROMPT = "There once was a ship that put to sea, and the name of the ship was long. " * 5
ENDLESS: dict[str, Any] = {"temperature": 0, "max_tokens": 4000, "ignore_eos": True}


@pytest.fixture
def watcher(server: RunningServer) -> Iterator[Client]:
    """A client apart, which sees what the server holds."""
    with Client(url_of(server, "grpc")) as client:
        yield client


@pytest.fixture
def baseline(watcher: Client) -> Iterator[int]:
    """The pages held before the test, to which the server must come back."""
    held = watcher.admin.stats().num_held_pages
    yield held
    wait_until(lambda: watcher.admin.stats().num_running_requests == 0)
    assert watcher.admin.stats().num_held_pages == held
    assert watcher.admin.health().is_healthy


def test_leaving_a_stream_cancels_it(client: Any, watcher: Client, baseline: int) -> None:
    with client.stream(PROMPT, **ENDLESS) as stream:
        assert next(stream).num_tokens
        assert watcher.admin.stats().num_held_pages > baseline


def test_the_deadline_ends_it(client: Any, baseline: int) -> None:
    del baseline
    with client.stream(PROMPT, **ENDLESS, timeout_s=0.8) as stream, pytest.raises(DeadlineExceeded) as failure:
        list(stream)
    assert failure.value.field in {"timeout_s", "deadline_ms", None}


def test_cancelled_by_its_name(client: Any, watcher: Client, baseline: int) -> None:
    del baseline
    with client.stream(PROMPT, **ENDLESS, request_id="by-name") as stream:
        next(stream)
        assert watcher.admin.cancel(request_id="by-name") == 1
        with pytest.raises(Cancelled):
            list(stream)


def test_a_cancelled_turn_leaves_a_session_that_goes_on(client: Any, watcher: Client, baseline: int) -> None:
    del baseline
    with client.session() as session:
        with session.stream(PROMPT, **ENDLESS) as stream:
            next(stream)
            watcher.admin.cancel(session_id=session.session_id)
            with pytest.raises(Cancelled):
                list(stream)
        assert session.length is None
        assert session.resume().num_tokens == session.length
        assert session.generate(" And", temperature=0, max_tokens=2).usage.num_cached_tokens > 64


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_dropping_a_stream_cancels_it(server: RunningServer, protocol: str, watcher: Client, baseline: int) -> None:
    with Client(url_of(server, protocol)) as client:
        for delta in client.stream(PROMPT, **ENDLESS):
            assert delta.text is not None
            break
        wait_until(lambda: watcher.admin.stats().num_held_pages == baseline)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_cancelled_task_cancels_its_request(
    server: RunningServer, protocol: str, watcher: Client, baseline: int
) -> None:
    async def cancel_midway() -> None:
        begun = asyncio.Event()

        async def read(client: AsyncClient) -> None:
            async with client.stream(PROMPT, **ENDLESS) as stream:
                async for _ in stream:
                    begun.set()

        async with AsyncClient(url_of(server, protocol)) as client:
            task = asyncio.create_task(read(client))
            await asyncio.wait_for(begun.wait(), LIMIT_S)
            assert (await client.admin.stats()).num_held_pages > baseline
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel_midway())
    wait_until(lambda: watcher.admin.stats().num_held_pages == baseline)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_threads_share_a_client(server: RunningServer, protocol: str, baseline: int) -> None:
    del baseline
    counts: list[int | None] = []
    with Client(url_of(server, protocol)) as client:

        def ask() -> None:
            result = client.generate("Hello", temperature=0, max_tokens=3, ignore_eos=True)
            counts.append(result.usage.num_generated_tokens)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts == [3] * 8


@pytest.mark.parametrize("scheme", PROTOCOLS)
def test_a_server_that_is_not_there_is_not_waited_for_longer_than_asked(scheme: str) -> None:
    start_s = time.monotonic()
    with Client(f"{scheme}://127.0.0.1:1") as client, pytest.raises(DeadlineExceeded, match=r"not ready within 0\.3 s"):
        client.wait_ready(0.3)
    assert time.monotonic() - start_s < 60
