"""A whole load test as a person starts one: Locust in a process of its own, its exit status, and what it wrote."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folio_loadtests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.server.running_server import RunningServer

LOCUSTFILE = Path(folio_loadtests.__file__).parent / "locustfile.py"
WORKLOAD = Path(__file__).parent / "workload.toml"
LIMIT_S = 120


@dataclass(frozen=True)
class LoadRun:
    """What came of a load test.

    Attributes:
        status: its exit status.
        document: report.json; empty where it wrote none.
        page: report.html; empty where it wrote none.
        output: what it said.
    """

    status: int
    document: dict[str, Any]
    page: str
    output: str


class StartedLoad:
    """A load test under way.

    Args:
        server: what it loads.
        folder: where its report goes.
        arguments: of Locust, besides.
        before: words in front of the command, such as `nice`.
    """

    def __init__(
        self, server: RunningServer, folder: Path, arguments: Sequence[str] = (), before: Sequence[str] = ()
    ) -> None:
        self._folder = folder
        self._output = folder / "output.log"
        command = [*before, sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
        where = [f"--host=grpc://{server.grpc_address}", f"--metrics={server.metrics_address}"]
        quiet = ["--loglevel=WARNING", f"--json-file={folder / 'locust.json'}"]
        options = [f"--workload={WORKLOAD}", f"--report={folder}"]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, *where, *quiet, *options, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self._output.read_text()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait(self) -> LoadRun:
        """What came of it."""
        try:
            status = self._process.wait(LIMIT_S)
        finally:
            self._process.kill()
        report, page = self._folder / "report.json", self._folder / "report.html"
        document = json.loads(report.read_text()) if report.exists() else {}
        return LoadRun(status, document, page.read_text() if page.exists() else "", self.output)


def first_in_line() -> tuple[str, ...]:
    """Words before a command that have it run at once whenever it has something to do, where that is allowed.

    So a test shows what the generator does by itself, and not how busy the machine is just then.
    """
    words = ("chrt", "--rr", "1")
    if shutil.which(words[0]) is None:
        return ()
    return words if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0 else ()


def run_load(server: RunningServer, folder: Path, *arguments: str, before: Sequence[str] = ()) -> LoadRun:
    """Runs a load test to its end."""
    return StartedLoad(server, folder, arguments, before).wait()
