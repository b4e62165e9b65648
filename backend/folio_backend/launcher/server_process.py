"""One running tritonserver: its command line, its environment, and an end that leaves no process behind.

Does not know when to start or stop: that is `main`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from folio_backend.launcher.listeners import Listeners
from folio_backend.launcher.locate import TritonServer
from folio_backend.launcher.options import Options
from folio_backend.launcher.runtime_folder import RuntimeFolder


def server_command(server: TritonServer, options: Options, listeners: Listeners, runtime: RuntimeFolder) -> list[str]:
    """Tritonserver's command line; what the person passed on comes last."""
    bound = [
        argument
        for name, port in vars(listeners.ports).items()
        for argument in (f"--{name}-address={listeners.address}", f"--{name}-port={port}")
    ]
    return [
        str(server.binary),
        *(f"--model-repository={folder}" for folder in options.model_repositories),
        f"--backend-directory={runtime.path / 'backends'}",
        # Python-based backends take this one's settings: the same under the name `folio` is ignored.
        f"--backend-config=python,shm-region-prefix-name={runtime.shared_memory_prefix}",
        f"--exit-timeout-secs={options.exit_timeout_s}",
        *bound,
        *options.server_arguments,
    ]


def server_environment(server: TritonServer, environment: Mapping[str, str]) -> dict[str, str]:
    """`environment`, in which the stub finds this Python first and the loader the server's libraries."""
    libraries = [str(folder) for folder in server.library_folders]
    return {
        **environment,
        # The stub runs the first `python3` on the path, whoever started it.
        "PATH": _joined([str(Path(sys.prefix, "bin"))], environment.get("PATH")),
        "LD_LIBRARY_PATH": _joined(libraries, environment.get("LD_LIBRARY_PATH")),
    }


class ServerProcess:
    """A started server, in a process group of its own.

    Args:
        command: its command line.
        environment: its whole environment.
        log: where its output goes; None for this process's standard error.
        inherited: a file descriptor it keeps open as long as any of its processes lives.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: BinaryIO | None, inherited: int
    ) -> None:
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log or sys.stderr,
            stderr=subprocess.STDOUT,
            pass_fds=(inherited,),
            # Ctrl-C in a terminal then reaches the launcher alone, which drains the server instead.
            start_new_session=True,
            preexec_fn=_take_signals,  # noqa: PLW1509 - nothing here has threads yet
        )

    @property
    def pid(self) -> int:
        """The server's process id, and its group's."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """How it ended (negative: by which signal), None while it runs."""
        return self._process.poll()

    def num_stubs(self) -> int:
        """How many models' processes it has left: none once every model is finished and unloaded."""
        num_stubs = 0
        with contextlib.suppress(FileNotFoundError):  # it ended meanwhile
            for children in Path("/proc", str(self.pid), "task").glob("*/children"):
                with contextlib.suppress(FileNotFoundError):  # that thread did
                    num_stubs += len(children.read_text().split())
        return num_stubs

    def terminate(self) -> None:
        """Asks it to admit nothing more, finish what runs, and exit."""
        self._process.terminate()

    def kill(self) -> None:
        """Ends whatever is left of it, stubs and compilers included, at once."""
        with contextlib.suppress(ProcessLookupError):  # all of the group is gone
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def _take_signals() -> None:
    """The launcher takes its signals one by one and so has them blocked; the server must not inherit that."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _joined(first: Sequence[str], rest: str | None) -> str:
    return os.pathsep.join([*first, *([rest] if rest else [])])
