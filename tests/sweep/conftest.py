"""A perf_analyzer that works, a tiny model repository, and one whole sweep over it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from folio_sweep import main
from folio_sweep.analyzer import PerfAnalyzer, find_perf_analyzer
from folio_sweep.errors import AnalyzerMissing
from tests.sweep.tiny_repository import ATTENTION, GENERATE, write_tiny_repository

if TYPE_CHECKING:
    from pathlib import Path

SMALL = (
    f"--generate-models={GENERATE}",
    f"--attention-models={ATTENTION}",
    "--generate-concurrency=1 2 4",
    "--generate-rates=20",
    "--generate-num-requests=4",
    "--generate-prompt-length=40",
    "--generate-history-length=40",
    "--attention-concurrency=1 2",
    "--attention-rates=60",
    "--attention-num-requests=8",
    "--output-tokens=4",
)


@dataclass(frozen=True)
class FinishedSweep:
    """A sweep that has ended.

    Attributes:
        out: its folder.
        status: its exit status.
    """

    out: Path
    status: int


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
    """A sweep of two codecs and two batch delays, on servers of its own."""
    assert analyzer.version, "it is found before servers start"
    out = tmp_path_factory.mktemp("sweep")
    where = [f"--model-repository={tiny_repository}", f"--out={out}"]
    return FinishedSweep(out, main.run([*SMALL, *where, "--codecs=int8 int4", "--batch-delays-us=0 3000"]))
