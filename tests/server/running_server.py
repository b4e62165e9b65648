"""A real server under test: started through `folio-server`, stopped, and looked after for what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's shared memory is at a fixed place
# How long killed or drained processes may take to be gone; a test that needs it all has failed.
EXIT_LIMIT_S = 60


class RunningServer:
    """One server, up and ready inside a `with` block and gone without a trace after it.

    Args:
        folder: where its logs go.
        model_repository: what it serves; None for the repository's own models.
        environment: variables set besides this process's own.
        arguments: further arguments of `folio-server`.

    Attributes:
        http_address: `host:port`, as the next two.
        grpc_address: see `http_address`.
        metrics_address: see `http_address`.
        launcher: the `folio-server` process.
        log: the server's log.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model_repository: Path | None = None,
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.http_address = self.grpc_address = self.metrics_address = ""
        self.log = folder / "server.log"
        self._messages = folder / "launcher.log"
        repository = [] if model_repository is None else [f"--model-repository={model_repository}"]
        free_ports = ["--http-port=0", "--grpc-port=0", "--metrics-port=0"]
        command = [sys.executable, "-m", "folio_backend.launcher.main", "--stop-with-stdin"]
        with self._messages.open("wb") as messages:
            self.launcher = subprocess.Popen(
                [*command, f"--log-file={self.log}", *free_ports, *repository, *arguments],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
            )
        self._processes: dict[int, int] = {}

    def __enter__(self) -> Self:
        self.wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        exit_status = self.stop()
        assert error or exit_status == 0, f"the server ended with {exit_status}:\n{self.messages()}"

    def wait_until_ready(self) -> None:
        """Waits for the launcher's three lines; fails with what it said if it ends instead."""
        assert self.launcher.stdout is not None
        urls = dict(line.decode().split() for line in (self.launcher.stdout.readline() for _ in range(3)) if line)
        if len(urls) < 3:
            self.wait()
            raise AssertionError(f"the server did not start:\n{self.messages()}")
        addresses = {name: url.split("/")[2] for name, url in urls.items()}
        self.http_address, self.grpc_address = addresses["HTTP"], addresses["gRPC"]
        self.metrics_address = addresses["metrics"]

    def server_pid(self) -> int:
        """The tritonserver process."""
        return next(pid for pid in children(self.launcher.pid) if _name(pid) == "tritonserver")

    def stub_pids(self) -> list[int]:
        """The processes that run models, one a model instance."""
        return [pid for pid in children(self.server_pid()) if _name(pid) == "triton_python_b"]

    def messages(self) -> str:
        """What the launcher has said so far."""
        return self._messages.read_text()

    def shared_memory(self) -> list[Path]:
        """The regions in /dev/shm that belong to this server."""
        return list(SHARED_MEMORY.glob(f"folio_{self.launcher.pid}_*"))

    def signal(self, number: signal.Signals, pid: int | None = None) -> None:
        """Sends a signal to the launcher, or to another of the server's processes."""
        self._remember_processes()
        os.kill(pid or self.launcher.pid, number)

    def stop(self) -> int:
        """Stops the server as SIGTERM does, unless it is gone already; see `wait`."""
        if self.launcher.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Waits for the end; returns the exit status once no process and no shared memory is left."""
        assert self.launcher.stdout is not None
        assert self.launcher.stdin is not None
        if not self.launcher.stdout.closed:
            # The guard holds this pipe open until it has cleaned up, also when the launcher was killed.
            self.launcher.stdout.read()
            self.launcher.stdout.close()
            self.launcher.stdin.close()
            self.launcher.wait()
            self._check_nothing_is_left()
        return self.launcher.wait()

    def _remember_processes(self) -> None:
        """Keeps hold of every process by a descriptor, which a later process of the same id does not take over."""
        pending = [self.launcher.pid]
        while pending:
            pid = pending.pop()
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                if pid not in self._processes:
                    self._processes[pid] = os.pidfd_open(pid)
            pending.extend(children(pid))

    def _check_nothing_is_left(self) -> None:
        for pid, descriptor in self._processes.items():
            ended, _, _ = select.select([descriptor], [], [], EXIT_LIMIT_S)
            assert ended, f"process {pid} is left"
            os.close(descriptor)
        self._processes.clear()
        assert not self.shared_memory(), "shared memory is left"
        folders = Path(tempfile.gettempdir()).glob(f"folio_{self.launcher.pid}_*")
        assert not list(folders), "a temporary folder is left"


def children(pid: int) -> list[int]:
    """The direct child processes of a process, whichever of its threads started them."""
    return [int(child) for thread in threads(pid) for child in _read(thread / "children").split()]


def threads(pid: int) -> list[Path]:
    """The folders of a process's threads; each may end at any moment."""
    return list(Path("/proc", str(pid), "task").glob("[0-9]*"))


def _name(pid: int) -> str:
    """A process's name, as far as the kernel keeps it: 15 characters."""
    return _read(Path("/proc", str(pid), "comm")).strip()


def _read(path: Path) -> str:
    """What the kernel says of a process or thread: nothing where it has ended meanwhile."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
