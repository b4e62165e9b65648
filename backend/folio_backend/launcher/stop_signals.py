"""The signals that the launcher lives by, taken one at a time so that none interrupts a clean-up."""

from __future__ import annotations

import signal

STOP = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
# The end of the server wakes the launcher as well.
EVENTS = STOP | {signal.SIGCHLD}


def hold() -> None:
    """From now on these signals wait until they are asked for. Child processes must let go of them again."""
    signal.pthread_sigmask(signal.SIG_BLOCK, EVENTS)


def stop_asked(within_s: float | None = None) -> bool:
    """Waits for the next event and says whether it was the wish to stop.

    Args:
        within_s: how long to wait at most; None for as long as it takes.
    """
    if within_s is None:
        return signal.sigwait(EVENTS) in STOP
    event = signal.sigtimedwait(EVENTS, within_s)
    return event is not None and event.si_signo in STOP
