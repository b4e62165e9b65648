"""The server's end: nothing new is admitted, what runs finishes, and idle clients do not hold it up."""

from __future__ import annotations

import time

from folio_backend.launcher.listeners import Listeners
from folio_backend.launcher.server_process import ServerProcess
from folio_backend.launcher.stop_signals import stop_asked

POLL_S = 0.5
# This long nothing runs before the server counts as finished; counts reach the metrics twice a second.
QUIET_S = 3
# Beyond the server's own time limit, to which it keeps within seconds unless a client holds a stream open.
GRACE_S = 15


def drain(process: ServerProcess, listeners: Listeners, exit_timeout_s: int) -> bool:
    """Asks the server to end and waits until all that ran is finished; the process may be there still.

    By itself the server waits for clients to close their connections, idle ones too: to the end of its time
    limit over HTTP, without end for a gRPC stream.

    Args:
        process: the server.
        listeners: where it tells what runs.
        exit_timeout_s: the server's own time limit.

    Returns:
        False where requests were cut off: by a second wish to stop, or by the time limit.
    """
    process.terminate()
    deadline = time.monotonic() + exit_timeout_s + GRACE_S
    quiet_since = None
    while process.exit_code() is None:
        if stop_asked(POLL_S) or time.monotonic() > deadline:
            return False
        if process.num_stubs() and listeners.num_requests() != 0:
            quiet_since = None
        elif quiet_since is None:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > QUIET_S:
            return True
    return process.exit_code() == 0
