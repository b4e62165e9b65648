"""What must hold on this machine before the server starts, and what a lack of it costs.

Every check looks at one fact and answers with one sentence that tells what to do. Does not know how the
server is started, and changes nothing.
"""

from __future__ import annotations

import ctypes
import enum
import importlib.metadata
import ipaddress
import os
import shutil
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from folio_backend.launcher.locate import (
    LIBPYTHON,
    PYTHON_VERSION,
    TritonServer,
    find_libpython,
    stub_python_version,
)

MIB = 1 << 20
# One region of 1 MiB a model, and what the tensors of the requests in flight take besides.
SHARED_MEMORY_NEEDED_BYTES = 16 * MIB
SHARED_MEMORY_WANTED_BYTES = 128 * MIB


class Verdict(enum.Enum):
    """What a finding means for the start."""

    OK = "ok"
    COST = "cost"
    REFUSAL = "refusal"


@dataclass(frozen=True)
class Finding:
    """One check's answer: a verdict, and a sentence that tells what to do unless all is well."""

    verdict: Verdict
    sentence: str


def check_machine(server: TritonServer, address: str, environment: Mapping[str, str]) -> list[Finding]:
    """Every check's finding, in the order in which a person would mend them.

    Args:
        server: the server to be started.
        address: the numeric address it will be bound to.
        environment: what it will be started with.
    """
    return [
        check_numpy(importlib.metadata.version("numpy")),
        check_stub(server.stub),
        check_libpython(),
        check_shared_memory(Path("/dev/shm")),  # noqa: S108 - the kernel's shared memory is at a fixed place
        check_compiler(environment),
        check_exposure(address, environment),
    ]


def check_numpy(version: str) -> Finding:
    """The server's stub was built against NumPy 1."""
    if int(version.partition(".")[0]) < 2:
        return Finding(Verdict.OK, f"NumPy {version}")
    return Finding(
        Verdict.REFUSAL,
        f"NumPy {version} is installed, and with NumPy 2 the server's Python stub corrupts every tensor: "
        "`pip install 'numpy<2'`.",
    )


def check_stub(stub: Path) -> Finding:
    """A stub runs the very Python it was built for."""
    version = stub_python_version(stub)
    if version in {None, PYTHON_VERSION}:
        return Finding(Verdict.OK, f"stub {stub}")
    return Finding(
        Verdict.REFUSAL,
        f"The server's stub {stub} is built for Python {version} and this is {PYTHON_VERSION}: "
        f"install Folio under Python {version}, or name another server in TRITONSERVER_HOME.",
    )


def check_libpython() -> Finding:
    """The stub is linked to Python's shared library, which Debian keeps in a package of its own."""
    if find_libpython() is not None or _loader_finds(LIBPYTHON):
        return Finding(Verdict.OK, LIBPYTHON)
    return Finding(
        Verdict.REFUSAL,
        f"The server's stub needs {LIBPYTHON}, which is not here: on Debian and Ubuntu "
        f"`apt-get install libpython{PYTHON_VERSION}`, elsewhere a Python built with --enable-shared.",
    )


def check_shared_memory(folder: Path) -> Finding:
    """Tensors pass between the server and the stub through shared memory."""
    free = shutil.disk_usage(folder).free
    if free >= SHARED_MEMORY_WANTED_BYTES:
        return Finding(Verdict.OK, f"{folder} has {free // MIB} MiB free")
    advice = f"{folder} has {free // MIB} MiB free: give a container `--shm-size=1g`, or remount it larger"
    if free >= SHARED_MEMORY_NEEDED_BYTES:
        return Finding(Verdict.COST, f"{advice}, or many large requests at once will fail.")
    needed = SHARED_MEMORY_NEEDED_BYTES // MIB
    return Finding(Verdict.REFUSAL, f"{advice}; the server needs {needed} MiB to start.")


def check_compiler(environment: Mapping[str, str]) -> Finding:
    """On a CPU attention is compiled to C++ when the model loads."""
    compiler = shutil.which(environment.get("CXX", "g++"))
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if compiler and header.exists():
        return Finding(Verdict.OK, f"C++ compiler {compiler}")
    missing = header.name if compiler else "C++ compiler"
    return Finding(
        Verdict.COST,
        f"There is no {missing}, so on a CPU attention runs uncompiled, many times slower: "
        "on Debian and Ubuntu `apt-get install g++ python3-dev`.",
    )


def check_exposure(address: str, environment: Mapping[str, str]) -> Finding:
    """Whoever reaches the ports can end sessions, so beyond loopback that takes a token."""
    loopback = ipaddress.ip_address(address).is_loopback
    if loopback or environment.get("KV_CACHE_ADMIN_TOKEN"):
        return Finding(Verdict.OK, f"address {address}")
    return Finding(
        Verdict.REFUSAL,
        f"{address} can be reached from other machines: set KV_CACHE_ADMIN_TOKEN, which admin operations "
        "then need, or keep --host 127.0.0.1.",
    )


def check_tracing(server_arguments: Sequence[str], environment: Mapping[str, str]) -> Finding:
    """Our spans belong to the server's, so without those there are none of ours either."""
    given = {argument.removeprefix("--trace-config=").lower() for argument in server_arguments}
    missing = [setting for setting in ("mode=opentelemetry", "level=timestamps") if setting not in given]
    if not environment.get("KV_CACHE_TRACE_URL") or not missing:
        return Finding(Verdict.OK, "tracing")
    options = " ".join(f"--trace-config {setting}" for setting in missing)
    return Finding(
        Verdict.COST,
        f"KV_CACHE_TRACE_URL is set, but the server traces nothing, and so there will be no spans: add `{options}`, "
        "and with `--trace-config opentelemetry,url=...` where its own spans go.",
    )


def _loader_finds(library: str) -> bool:
    try:
        ctypes.CDLL(library, mode=os.RTLD_LAZY)
    except OSError:
        return False
    return True
