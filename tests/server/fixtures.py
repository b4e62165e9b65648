"""Real servers, for the tests of the server and of its client: one for all, and more on demand."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.server.generate_client import GenerateClient
from tests.server.running_server import RunningServer
from tests.server.small_server import start_small_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


class StartServer(Protocol):
    """Starts a server that is stopped when the test ends, if the test has not done so."""

    def __call__(
        self,
        *,
        model_repository: Path | None = None,
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> RunningServer:
        """The server, ready."""
        ...


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The repository's own models, served once for all tests that only send requests."""
    with RunningServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> GenerateClient:
    """A client of the generate model of the server that all tests share."""
    return GenerateClient(server)


@pytest.fixture(scope="session")
def small_servers() -> Iterator[list[RunningServer]]:
    """The small servers that tests have started."""
    servers: list[RunningServer] = []
    yield servers
    for server in servers:
        assert server.stop() == 0


@pytest.fixture
def small_server(small_servers: list[RunningServer], tmp_path_factory: pytest.TempPathFactory) -> RunningServer:
    """A small server (`small_server.py`): the last test's, unless that one has stopped it."""
    if not small_servers or small_servers[-1].launcher.poll() is not None:
        small_servers.append(start_small_server(tmp_path_factory.mktemp("small_server")))
    return small_servers[-1]


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Starts servers of a test's own: with another repository, environment or arguments."""
    with contextlib.ExitStack() as servers:

        def start(
            *,
            model_repository: Path | None = None,
            environment: Mapping[str, str] | None = None,
            arguments: Sequence[str] = (),
        ) -> RunningServer:
            folder = tmp_path_factory.mktemp("server")
            running = RunningServer(
                folder, model_repository=model_repository, environment=environment, arguments=arguments
            )
            return servers.enter_context(running)

        yield start
