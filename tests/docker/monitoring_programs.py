"""Prometheus' programs: found, run to their end, or started on a free port and stopped.

Knows their command lines and how they say where they listen; nothing of rules or alerts.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from tests.server.generate_client import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from typing_extensions import Self

EXIT_LIMIT_S = 60
# Where `make monitoring-tools` unpacks them.
UNPACKED = Path(sys.prefix, "monitoring-tools", "usr", "bin")
_LISTENS = re.compile(r'msg="Listening on" address=(\S+)')
# Debian's name, where it differs from the project's.
_OTHER_NAMES = {"alertmanager": "prometheus-alertmanager"}


def find_program(name: str) -> str:
    """The path of a program, on PATH or unpacked; skips the test on a machine without it."""
    places = os.pathsep.join((os.environ["PATH"], str(UNPACKED)))
    found = shutil.which(name, path=places) or shutil.which(_OTHER_NAMES.get(name, name), path=places)
    if found is None:
        pytest.skip(f"{name} is neither on PATH nor unpacked: run `make monitoring-tools`, or install Prometheus")
    return found


def run_program(name: str, *arguments: str | Path, stdin: str | None = None) -> str:
    """What a program prints; fails with all that it said where it does not succeed."""
    command = [find_program(name), *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{name}:\n{done.stdout}{done.stderr}"
    return done.stdout


class RunningDaemon:
    """Prometheus or Alertmanager, listening on a free port inside a `with` block.

    Args:
        name: `prometheus` or `alertmanager`.
        folder: an empty folder for its data and its log.
        arguments: of its command line, besides the port.

    Attributes:
        address: `host:port`.
    """

    def __init__(self, name: str, folder: Path, *arguments: str) -> None:
        self.address = ""
        self._log = folder / f"{name}.log"
        command = [find_program(name), "--web.listen-address=127.0.0.1:0", *arguments]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self) -> Self:
        try:
            wait_until(self._is_listening)
            wait_until(self._is_ready)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def get(self, path: str, **parameters: str) -> Any:
        """The JSON that its interface answers; fails on any other status than 200."""
        return json.loads(self._ask("GET", f"{path}?{urlencode(parameters)}"))

    def post(self, path: str, content: object) -> None:
        """Sends JSON to its interface; fails on any other status than 200."""
        self._ask("POST", path, json.dumps(content), {"Content-Type": "application/json"})

    def _ask(self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] | None = None) -> bytes:
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            content = response.read()
            assert response.status == http.HTTPStatus.OK, f"{path}: {response.status} {content.decode()}"
            return content
        finally:
            connection.close()

    def _is_listening(self) -> bool:
        assert self._process.poll() is None, f"it ended:\n{self._log.read_text()}"
        said = _LISTENS.search(self._log.read_text())
        self.address = said.group(1) if said else ""
        return said is not None

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, f"it ended:\n{self._log.read_text()}"
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            connection.request("GET", "/-/ready")
            return connection.getresponse().status == http.HTTPStatus.OK
        finally:
            connection.close()

    def _stop(self) -> None:
        self._process.terminate()
        self._process.wait(EXIT_LIMIT_S)


class RunningPrometheus(RunningDaemon):
    """A Prometheus that keeps its data in `folder`.

    Args:
        folder: an empty folder.
        configuration: its configuration file.
    """

    def __init__(self, folder: Path, configuration: Path) -> None:
        storage = f"--storage.tsdb.path={folder}/data"
        # An alert that Alertmanager missed is told again soon, rather than after a minute.
        again = "--rules.alert.resend-delay=1s"
        super().__init__("prometheus", folder, f"--config.file={configuration}", storage, again)

    def knows_alertmanager(self) -> bool:
        """Whether it has found an Alertmanager to tell."""
        return bool(self.get("/api/v1/alertmanagers")["data"]["activeAlertmanagers"])

    def values(self, expression: str) -> list[float]:
        """The values of an expression now, one for each of its series."""
        answer = self.get("/api/v1/query", query=expression)
        return [float(series["value"][1]) for series in answer["data"]["result"]]

    def range(self, expression: str, start_s: float, end_s: float) -> list[float]:
        """Every value of an expression from second to second, of all its series together."""
        moments = {"start": str(start_s), "end": str(end_s), "step": "1"}
        answer = self.get("/api/v1/query_range", query=expression, **moments)
        return [float(value) for series in answer["data"]["result"] for _, value in series["values"]]


class RunningAlertmanager(RunningDaemon):
    """An Alertmanager by itself.

    Args:
        folder: an empty folder.
        configuration: its configuration file.
    """

    def __init__(self, folder: Path, configuration: Path) -> None:
        alone = "--cluster.listen-address="
        storage = f"--storage.path={folder}/data"
        super().__init__("alertmanager", folder, f"--config.file={configuration}", storage, alone)
