"""Lays out the folder in which the server finds its backends.

`python/` is the server's own Python backend with the stub for this Python; `folio/` is `model.py` and the two
packages behind it. Does not know how the server is started.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import folio_backend
import folio_kernels
from folio_backend.errors import ConfigurationError
from folio_backend.launcher.locate import STUB_NAME, TritonServer
from folio_backend.launcher.project_files import project_folder

PACKAGES = {"folio_backend": folio_backend, "folio_kernels": folio_kernels}


def lay_out(target: Path, server: TritonServer) -> None:
    """Fills `target` with `python/` and `folio/` for one run of the server on this machine."""
    python = target / "python"
    # The server refuses a library that a link leads out of its backend's folder, so these are copies.
    shutil.copytree(server.python_backend, python, ignore=shutil.ignore_patterns("__pycache__", STUB_NAME))
    shutil.copy2(server.stub, python / STUB_NAME)
    folio = target / "folio"
    folio.mkdir()
    shutil.copy2(project_folder() / "backend/model.py", folio)
    for name, folder in _package_folders().items():
        (folio / name).symlink_to(folder, target_is_directory=True)


def export(target: Path) -> Path:
    """Writes a self-contained `folio/` into `target`, ready to be copied into a stock Triton's `backends/`.

    Returns:
        The folder written.

    Raises:
        ConfigurationError: it is there already.
    """
    folio = target / "folio"
    if folio.exists():
        raise ConfigurationError(f"{folio} is there already: remove it first, or name another folder.")
    folio.mkdir(parents=True)
    shutil.copy2(project_folder() / "backend/model.py", folio)
    for name, folder in _package_folders().items():
        shutil.copytree(folder, folio / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folio


def _package_folders() -> dict[str, Path]:
    return {name: Path(package.__path__[0]) for name, package in PACKAGES.items()}
