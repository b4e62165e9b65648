"""Which perf_analyzer is taken for a real one, and what a person reads who has none."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from folio_sweep import main
from folio_sweep.analyzer import check, find_perf_analyzer
from folio_sweep.errors import AnalyzerMissing

if TYPE_CHECKING:
    from pathlib import Path

    from folio_sweep.analyzer import PerfAnalyzer


def program(folder: Path, text: str) -> Path:
    path = folder / "perf_analyzer"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def offline(folder: Path, path: str) -> dict[str, str]:
    """An environment with nothing in the cache; `unreachable_index` makes pip fail at once."""
    return {"PATH": path, "FOLIO_CACHE_DIR": str(folder / "cache"), "HOME": str(folder)}


@pytest.fixture
def unreachable_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages cannot be fetched."""
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)


def test_the_one_that_is_found_says_its_version(analyzer: PerfAnalyzer) -> None:
    assert tuple(map(int, analyzer.version.split("."))) >= (2, 48, 0)
    assert check(analyzer.binary, analyzer.library_folder, os.environ) == analyzer


@pytest.mark.usefixtures("unreachable_index")
def test_a_real_one_on_the_path_is_taken_as_it_is(analyzer: PerfAnalyzer, tmp_path: Path) -> None:
    real = program(tmp_path, f'LD_LIBRARY_PATH="{analyzer.library_folder or ""}" exec "{analyzer.binary}" "$@"')
    found = find_perf_analyzer(offline(tmp_path, f"{tmp_path}:/usr/bin:/bin"), print)
    assert (found.binary, found.version, found.library_folder) == (real, analyzer.version, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exit 0", "it said nothing"),
        ("echo something else", "it said 'something else'"),
        ("echo 'libb64.so.0d: cannot open shared object file' >&2; exit 127", "cannot open shared object file"),
    ],
)
@pytest.mark.usefixtures("unreachable_index")
def test_an_empty_or_broken_one_is_not_taken_for_real(text: str, reason: str, tmp_path: Path) -> None:
    program(tmp_path, text)
    with pytest.raises(AnalyzerMissing, match="no working perf_analyzer") as missing:
        find_perf_analyzer(offline(tmp_path, str(tmp_path)), print)
    assert reason in str(missing.value)


@pytest.mark.usefixtures("unreachable_index")
def test_without_one_and_without_network_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(AnalyzerMissing) as missing:
        find_perf_analyzer(offline(tmp_path, str(tmp_path)), print)
    text = str(missing.value)
    for needed in ("PATH holds no perf_analyzer", "tritonclient==2.48.0", "nvidia-cuda-runtime-cu12", "libb64-0d"):
        assert needed in text


@pytest.mark.usefixtures("unreachable_index")
def test_the_command_ends_with_that_text_and_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in offline(tmp_path, str(tmp_path)).items():
        monkeypatch.setenv(name, value)
    assert main.run([f"--out={tmp_path}"]) == 1
    assert "tritonclient==2.48.0" in capsys.readouterr().err


def test_the_empty_package_of_that_name_has_no_program(tmp_path: Path) -> None:
    # Where no wheel fits, pip installs perf-analyzer 0.1.0: a module, and no program.
    package = tmp_path / "perf_analyzer"
    package.mkdir()
    (package / "__init__.py").touch()
    assert shutil.which("perf_analyzer", path=str(tmp_path)) is None
    with pytest.raises(AnalyzerMissing, match="does not run"):
        check(package, None, {"PATH": sys.prefix})
