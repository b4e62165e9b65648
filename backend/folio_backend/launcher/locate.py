"""Finds the Triton Inference Server on this machine and what its Python backend needs.

Knows the three places a server is looked for and the two ways its files are laid out (NVIDIA's
`/opt/tritonserver`, and the `nvidia-pytriton` wheel). Whether what it finds works is for `checks` to say.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from folio_backend.errors import ConfigurationError

STUB_NAME = "triton_python_backend_stub"
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
LIBPYTHON = f"libpython{PYTHON_VERSION}.so.1.0"
INSTALLED_HOME = Path("/opt/tritonserver")


@dataclass(frozen=True)
class TritonServer:
    """Where one server's files are.

    Attributes:
        binary: the `tritonserver` executable.
        python_backend: the folder with the Python backend's library and its Python module.
        stub: the process that runs a Python model, preferably the one built for this Python.
        library_folders: what the loader's search path must begin with.
    """

    binary: Path
    python_backend: Path
    stub: Path
    library_folders: tuple[Path, ...]


def locate_server(environment: Mapping[str, str]) -> TritonServer:
    """The server to start: `TRITONSERVER_HOME`, else `/opt/tritonserver`, else the `nvidia-pytriton` wheel.

    Raises:
        ConfigurationError: there is none, or the one found lacks a file.
    """
    if named := environment.get("TRITONSERVER_HOME"):
        return server_in(Path(named))
    if (INSTALLED_HOME / "bin/tritonserver").exists():
        return server_in(INSTALLED_HOME)
    wheel = _wheel_home()
    if wheel is None:
        raise ConfigurationError(
            "No Triton Inference Server was found: install one with `pip install nvidia-pytriton==0.7.0`, "
            "or name its folder in TRITONSERVER_HOME."
        )
    return server_in(wheel)


def server_in(home: Path) -> TritonServer:
    """The server whose folder is `home`.

    Raises:
        ConfigurationError: a file that it needs is not there.
    """
    binary = home / "bin/tritonserver"
    python_backend = home / "backends/python"
    stubs = (home / "python_backend_stubs" / PYTHON_VERSION / STUB_NAME, python_backend / STUB_NAME)
    stub = next((path for path in stubs if path.exists()), stubs[0])
    for needed in (binary, python_backend / "libtriton_python.so", stub):
        if not needed.exists():
            raise ConfigurationError(
                f"{home} holds no complete Triton Inference Server for Python {PYTHON_VERSION}: {needed} is "
                "missing; name another one in TRITONSERVER_HOME, or use a Python it has a stub for."
            )
    folders = [home / "lib", home.parent.parent / "nvidia_pytriton.libs"]
    libpython = find_libpython()
    if libpython is not None:
        folders.append(libpython.parent)
    return TritonServer(binary, python_backend, stub, tuple(folder for folder in folders if folder.exists()))


def stub_python_version(stub: Path) -> str | None:
    """The Python that a stub was built for, as "3.11", or None where its file does not tell."""
    found = re.search(rb"libpython(3\.\d+)\.so", stub.read_bytes())
    return found[1].decode() if found else None


def find_libpython() -> Path | None:
    """This Python's shared library, to which the stub is linked; None where Python's own folders lack it."""
    names = ("LIBDIR", "MULTIARCH", "LIBPL")
    library, multiarch, static = (sysconfig.get_config_var(name) or "" for name in names)
    folders = [Path(library), Path(library) / multiarch, Path(sys.base_prefix) / "lib", Path(static)]
    return next((folder / LIBPYTHON for folder in folders if (folder / LIBPYTHON).exists()), None)


def _wheel_home() -> Path | None:
    """The server's folder in the installed wheel. The wheel's package is found but never imported."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "tritonserver"
