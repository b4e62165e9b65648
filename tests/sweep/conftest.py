"""A perf_analyzer that works, a tiny model repository, a server of it, and whole sweeps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from folio_sweep import main
from folio_sweep.analyzer import PerfAnalyzer, find_perf_analyzer
from folio_sweep.errors import AnalyzerMissing
from folio_sweep.server import started_server, write_repository
from tests.sweep.tiny_repository import ATTENTION, GENERATE, write_tiny_repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GENERATE_SIZES = (
    f"--generate-models={GENERATE}",
    "--generate-num-requests=4",
    "--generate-prompt-length=40",
    "--generate-history-length=40",
    "--output-tokens=4",
)
BATCH_DELAYS_US = (0, 3000)


@dataclass(frozen=True)
class FinishedSweep:
    """A sweep that has ended.

    Attributes:
        out: its folder.
        status: its exit status.
    """

    out: Path
    status: int


@dataclass(frozen=True)
class TinyServer:
    """A running server.

    Attributes:
        address: `host:port` of its gRPC.
        attention_models: its attention models, one for each batch delay.
    """

    address: str
    attention_models: tuple[str, ...]


@pytest.fixture(scope="session")
def analyzer() -> PerfAnalyzer:
    """A perf_analyzer: this machine's, else one fetched into the cache folder."""
    try:
        return find_perf_analyzer(os.environ, print)
    except AnalyzerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `tiny_repository.py`."""
    return write_tiny_repository(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def sweep(analyzer: PerfAnalyzer, tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedSweep:
    """A sweep of the generate model with two codecs, on servers of its own."""
    assert analyzer.version, "it is found before servers start"
    out = tmp_path_factory.mktemp("sweep")
    where = [f"--model-repository={tiny_repository}", f"--out={out}", "--codecs=int8 int4", "--attention-models="]
    return FinishedSweep(
        out, main.run([*GENERATE_SIZES, *where, "--generate-concurrency=1 2 4", "--generate-rates=20"])
    )


@pytest.fixture(scope="session")
def tiny_server(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyServer]:
    """A server of all models that runs one generation at a time and lets one wait."""
    folder = tmp_path_factory.mktemp("tiny_server")
    names = write_repository(folder / "models", tiny_repository, [GENERATE], [ATTENTION], BATCH_DELAYS_US)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KV_CACHE_MAX_RUNNING_REQUESTS", "1")
        patch.setenv("KV_CACHE_MAX_QUEUED_REQUESTS", "1")
        with started_server(folder / "models", "int4", folder / "server.log") as address:
            yield TinyServer(address, names)


@pytest.fixture(scope="session")
def attention_sweep(
    analyzer: PerfAnalyzer, tiny_server: TinyServer, tmp_path_factory: pytest.TempPathFactory
) -> FinishedSweep:
    """A sweep of the attention models of a running server."""
    assert analyzer.version, "it is found before servers start"
    out = tmp_path_factory.mktemp("attention_sweep")
    where = [f"--host=grpc://{tiny_server.address}", f"--out={out}", "--generate-models="]
    models = [f"--attention-models={' '.join(tiny_server.attention_models)}", "--attention-num-requests=8"]
    return FinishedSweep(out, main.run([*where, *models, "--attention-concurrency=1 2", "--attention-rates=60"]))
