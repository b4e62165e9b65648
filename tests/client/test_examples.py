"""Whatever the README and docstrings show works as it stands, against a real server."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import folio_client
from folio_client import Client
from folio_client.cli import run
from folio_client.connection import DEFAULT_URL
from tests.client.clients import url_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.server.running_server import RunningServer

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def docstrings() -> Iterator[doctest.DocTest]:
    """Every docstring of the package that has examples."""
    finder = doctest.DocTestFinder()
    for module in pkgutil.iter_modules(folio_client.__path__, "folio_client."):
        yield from finder.find(importlib.import_module(module.name))
    yield from finder.find(folio_client)


DOCSTRINGS = {found.name: found for found in docstrings() if found.examples}
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
BASH = "/bin/bash"
CURL = [block for block in re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL) if "curl" in block]
COMMANDS = re.findall(r"^folio (.+?)(?:\s+#.*)?$", README, re.MULTILINE)


@pytest.fixture
def address(server: RunningServer) -> str:
    return url_of(server, "grpc")


def test_there_are_examples() -> None:
    assert {"folio_client", "folio_client.aio.AsyncClient", "folio_client.client.Client"} <= DOCSTRINGS.keys()
    assert PYTHON
    assert {command.split()[0] for command in COMMANDS} == {
        "chat",
        "generate",
        "sessions",
        "stats",
        "health",
        "warm-up",
    }


@pytest.mark.parametrize("name", DOCSTRINGS)
def test_docstring(name: str, address: str) -> None:
    found = DOCSTRINGS[name]
    assert found.docstring is not None
    shown = found.docstring.replace(DEFAULT_URL, address)
    with Client(address) as client:
        names = {**found.globs, "client": client, "np": np}
        example = doctest.DocTestParser().get_doctest(shown, names, name, found.filename, found.lineno)
        report: list[str] = []
        results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
    assert results.failed == 0, "".join(report)


@pytest.mark.parametrize("code", PYTHON)
def test_python_of_the_readme(code: str, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(code.replace(DEFAULT_URL, address), {})  # noqa: S102 - the README's own
    assert capsys.readouterr().out


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_of_the_readme(server: RunningServer) -> None:
    (block,) = CURL
    shown = block.replace("localhost:8000", server.http_address).replace("localhost:8002", server.metrics_address)
    done = subprocess.run([BASH, "-euo", "pipefail", "-c", shown], capture_output=True, text=True, check=False)
    with Client(url_of(server, "grpc")) as client:
        client.admin.close("s1")
    assert done.returncode == 0, done.stderr
    assert '"error"' not in done.stdout
    for wanted in ("Paris", "data: ", "bytes_per_token", "kv_cache_requests_total"):
        assert wanted in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_readme(command: str, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOLIO_URL", address)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda _: "/quit")
    bounded = ["--count", "2"] if "--watch" in command else []
    assert run([*shlex.split(command), *bounded]) == 0
