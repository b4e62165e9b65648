"""What one run of the server leaves on the machine while it runs: a temporary folder, and names in /dev/shm.

Both carry the same name, `folio_<pid>_<random>`, and the folder is locked by every process of the run. So
what a run left behind that was killed outright can be told from what a living run uses. Knows no server.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's shared memory is at a fixed place
GUARD_MODULE = "folio_backend.launcher.guard"


@dataclass(frozen=True)
class RuntimeFolder:
    """A run's folder.

    Attributes:
        path: where it is.
        lock: a file descriptor that holds the folder's lock for whichever process inherits it.
        guard: the guard's standard input.
    """

    path: Path
    lock: int
    guard: IO[bytes]

    @property
    def shared_memory_prefix(self) -> str:
        """What the names of the run's shared memory begin with."""
        return f"{self.path.name}_"

    def watch(self, server: int) -> None:
        """Has the server's process group ended, at the latest, when this process ends.

        Args:
            server: the server's process id, which is its group's too.
        """
        self.guard.write(f"{server}\n".encode())
        self.guard.flush()


@contextlib.contextmanager
def runtime_folder(drain_limit_s: float) -> Iterator[RuntimeFolder]:
    """A new run's folder, removed at the end of the block with what the run has left of processes and memory.

    The removal is the guard's, a process of its own, so that it takes place also when this one is killed.

    Args:
        drain_limit_s: how long the server may take to finish when this process is killed.
    """
    path = Path(tempfile.mkdtemp(prefix=f"folio_{os.getpid()}_"))
    lock = os.open(path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    guard = subprocess.Popen(
        [sys.executable, "-m", GUARD_MODULE, str(path), str(drain_limit_s)],
        stdin=subprocess.PIPE,
        pass_fds=(lock,),
        start_new_session=True,
    )
    assert guard.stdin is not None, "it is started with a pipe"
    try:
        yield RuntimeFolder(path, lock, guard.stdin)
    finally:
        os.close(lock)
        guard.communicate()


def remove_abandoned() -> None:
    """Removes what earlier runs of this user left behind that were killed together with their guards."""
    for folder in Path(tempfile.gettempdir()).glob("folio_*_*"):
        # Other launchers look through the same folders, and end meanwhile.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if not _in_use(folder.name.split("_")[1]) and folder.stat().st_uid == os.getuid():
                _remove_unlocked(folder)


def remove_folder(folder: Path) -> None:
    """Removes a run's folder and its shared memory."""
    for region in SHARED_MEMORY.glob(f"{folder.name}_*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _in_use(pid: str) -> bool:
    """Whether another process has `pid`. Our own may have been an earlier run's: containers count from 1."""
    return not pid.isdecimal() or (int(pid) != os.getpid() and Path("/proc", pid).exists())


def _remove_unlocked(folder: Path) -> None:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # the server outlived its launcher and still runs
    else:
        remove_folder(folder)
    finally:
        os.close(lock)
