"""Clients of real servers: each test that takes `client` runs over gRPC and HTTP, synchronously and with asyncio."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.client.clients import PROTOCOLS, opened_client, url_of
from tests.server.running_server import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator

VLLM_MODEL = Path(__file__).parent / "vllm_model"


@pytest.fixture(params=PROTOCOLS)
def url(server: RunningServer, request: pytest.FixtureRequest) -> str:
    """The server that all tests share."""
    return url_of(server, request.param)


@pytest.fixture(params=["sync", "async"])
def style(request: pytest.FixtureRequest) -> str:
    """Which of the two clients."""
    return str(request.param)


@pytest.fixture
def client(url: str, style: str) -> Iterator[Any]:
    """A client of the server that all tests share."""
    with opened_client(url, style) as opened:
        yield opened


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of a model with vllm_backend's interface, and of none of Folio's."""
    folder = tmp_path_factory.mktemp("vllm_server")
    version = folder / "repository" / "vllm" / "1"
    version.mkdir(parents=True)
    shutil.copy(VLLM_MODEL / "config.pbtxt", version.parent)
    shutil.copy(VLLM_MODEL / "model.py", version)
    with RunningServer(folder, model_repository=folder / "repository") as running:
        yield running


@pytest.fixture(params=PROTOCOLS)
def vllm_client(vllm_server: RunningServer, style: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A client of that model."""
    with opened_client(url_of(vllm_server, request.param), style, model="vllm") as opened:
        yield opened
