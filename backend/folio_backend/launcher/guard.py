"""A second process beside the launcher that ends the run when the launcher is gone, however it went.

Starts nothing and reads one line: the server's process id. When its standard input ends, it lets the server
finish, ends whatever is left of it, and removes the run's folder and shared memory.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from pathlib import Path

from folio_backend.launcher.runtime_folder import remove_folder


def guard(folder: Path, drain_limit_s: float) -> None:
    """Waits for the launcher to end, then cleans up.

    Args:
        folder: the run's folder.
        drain_limit_s: how long the server may take to finish what runs.
    """
    pid = sys.stdin.buffer.readline()
    sys.stdin.buffer.read()
    if pid:
        _end(int(pid), drain_limit_s)
    remove_folder(folder)


def _end(server: int, drain_limit_s: float) -> None:
    """Ends the server and every process of its group. After a launcher's regular end there are none."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(server)
        os.kill(server, signal.SIGTERM)
        select.select([descriptor], [], [], drain_limit_s)
        os.close(descriptor)
    # A stub whose server died while it was loading a model waits for it for ever.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server, signal.SIGKILL)


if __name__ == "__main__":
    guard(Path(sys.argv[1]), float(sys.argv[2]))
