"""Finds a perf_analyzer that works on this machine: on PATH, else fetched once into the cache folder.

Knows where one comes from (PATH, the wheel `perf-analyzer` where glibc allows, tritonclient 2.48's wheel otherwise) and
how to tell a real one: it says its version. Does not know how to measure with it.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from folio_sweep.errors import AnalyzerMissing
from folio_sweep.fetch import fetch_cudart, fetch_libb64, fetch_member

PROGRAM = "perf_analyzer"
# Exact: without a version, pip installs an empty 0.1.0 where the real wheels do not fit.
NEWER_WHEEL = "perf-analyzer==2.60.0"
NEWER_MEMBER = "perf_analyzer/bin/perf_analyzer"
NEWER_GLIBC = (2, 38)
OLDER_WHEEL = "tritonclient==2.48.0"
OLDER_MEMBER = "tritonclient-2.48.0.data/data/bin/perf_analyzer"
# What the older one needs beyond a Debian of 2022 or later.
LIBRARIES: Mapping[str, Callable[[Path], None]] = {"libb64.so.0d": fetch_libb64, "libcudart.so.12": fetch_cudart}
VERSION = re.compile(r"^Perf Analyzer Version (\S+)", re.MULTILINE)
ANSWER_LIMIT_S = 60

Say = Callable[[str], None]


@dataclass(frozen=True)
class PerfAnalyzer:
    """A perf_analyzer that has said its version.

    Attributes:
        binary: the program.
        version: what it calls itself.
        library_folder: where the loader finds libraries that the machine lacks; None where it lacks none.
    """

    binary: Path
    version: str
    library_folder: Path | None = None

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """The environment to run it in."""
        return _environment(base, self.library_folder)


def find_perf_analyzer(environment: Mapping[str, str], say: Say) -> PerfAnalyzer:
    """The first perf_analyzer that works here.

    Args:
        environment: `PATH`, and `FOLIO_CACHE_DIR` or `XDG_CACHE_HOME` for what is fetched.
        say: told before something is fetched.

    Raises:
        AnalyzerMissing: none does; the text has every reason and what to install.
    """
    reasons = []
    for place in (_on_path, _newer_wheel, _older_wheel):
        try:
            return place(environment, say)
        except AnalyzerMissing as reason:
            reasons.append(str(reason))
    tried = "\n".join(f"- {reason}" for reason in reasons)
    raise AnalyzerMissing(
        f"No working perf_analyzer was found:\n{tried}\n"
        f"Put one on PATH (NVIDIA's image tritonserver:<version>-py3-sdk has it), or let this machine reach a package "
        f"index once, for `pip download --no-deps {OLDER_WHEEL} nvidia-cuda-runtime-cu12`, and install the Debian "
        "package libb64-0d."
    )


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where fetched programs are kept; it need not exist."""
    if named := environment.get("FOLIO_CACHE_DIR"):
        return Path(named, PROGRAM)
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache", "folio", PROGRAM)


def check(binary: Path, library_folder: Path | None, environment: Mapping[str, str]) -> PerfAnalyzer:
    """The program, once it has said its version.

    Raises:
        AnalyzerMissing: it does not start, or is something else of that name.
    """
    try:
        answer = subprocess.run(
            [binary, "--version"],
            env=_environment(environment, library_folder),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AnalyzerMissing(f"{binary} does not run: {error}.") from error
    # It writes its version to standard error.
    text = answer.stdout + answer.stderr
    found = VERSION.search(text)
    if found is None:
        said = text.strip().splitlines()
        reason = f"it said {said[0]!r}" if said else "it said nothing (an empty package?)"
        raise AnalyzerMissing(f"{binary} is no working perf_analyzer: asked for its version {reason}.")
    return PerfAnalyzer(binary, found[1], library_folder)


def _on_path(environment: Mapping[str, str], _say: Say) -> PerfAnalyzer:
    reasons = []
    for folder in environment.get("PATH", os.defpath).split(os.pathsep):
        binary = Path(folder or ".", PROGRAM)
        if os.access(binary, os.X_OK) and binary.is_file():
            try:
                return check(binary, None, environment)
            except AnalyzerMissing as reason:
                reasons.append(str(reason))
    raise AnalyzerMissing(" ".join(reasons) or f"PATH holds no {PROGRAM}.")


def _newer_wheel(environment: Mapping[str, str], say: Say) -> PerfAnalyzer:
    """The program of the wheel `perf-analyzer`, linked statically to all but the system's own libraries."""
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split(".")[:2])) < NEWER_GLIBC:
        needed = ".".join(map(str, NEWER_GLIBC))
        raise AnalyzerMissing(f"{NEWER_WHEEL} needs glibc {needed}; this machine has {name or 'no glibc'} {version}.")
    folder = cache_folder(environment) / NEWER_WHEEL
    fetch_member(NEWER_WHEEL, NEWER_MEMBER, folder / PROGRAM, say)
    return check(folder / PROGRAM, None, environment)


def _older_wheel(environment: Mapping[str, str], say: Say) -> PerfAnalyzer:
    folder = cache_folder(environment) / OLDER_WHEEL
    binary, libraries = folder / PROGRAM, folder / "lib"
    libraries.mkdir(parents=True, exist_ok=True)
    fetch_member(OLDER_WHEEL, OLDER_MEMBER, binary, say)
    for library in missing_libraries(binary, libraries, environment):
        if library not in LIBRARIES:
            raise AnalyzerMissing(f"{OLDER_WHEEL}'s {PROGRAM} needs {library}: install the package that has it.")
        say(f"fetching {library} for perf_analyzer")
        LIBRARIES[library](libraries / library)
    return check(binary, libraries, environment)


def missing_libraries(binary: Path, library_folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Names of the libraries that the loader does not find for a program."""
    linked = subprocess.run(
        ["ldd", binary],  # noqa: S607 - the system's own
        env=_environment(environment, library_folder),
        capture_output=True,
        text=True,
        check=False,
    )
    yield from re.findall(r"^\s*(\S+) => not found", linked.stdout, re.MULTILINE)


def _environment(base: Mapping[str, str], library_folder: Path | None) -> dict[str, str]:
    if library_folder is None:
        return dict(base)
    folders = [str(library_folder), *filter(None, [base.get("LD_LIBRARY_PATH")])]
    return {**base, "LD_LIBRARY_PATH": os.pathsep.join(folders)}
