"""Notices clients that have gone: asks the server about every live request, again and again.

The server tells nobody that a request was cancelled; it has to be asked. Knows channels by what they answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

POLL_INTERVAL_S = 0.05


class Cancellable(Protocol):
    """A request's way back to its client."""

    def is_cancelled(self) -> bool:
        """Whether its client no longer wants it; False once the final response is on its way."""


class CancelWatch:
    """A thread that asks.

    Args:
        on_error: told of what asking raised; the request is not asked about again.
    """

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        self._on_error = on_error
        self._watched: dict[Cancellable, Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="folio-cancel-watch", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopping.set()
        self._thread.join()

    def watch(self, channel: Cancellable, on_cancel: Callable[[], None]) -> None:
        """Calls `on_cancel` once when the channel's client has gone."""
        with self._lock:
            self._watched[channel] = on_cancel

    def forget(self, channel: Cancellable) -> None:
        """Stops asking about a channel."""
        with self._lock:
            self._watched.pop(channel, None)

    def _run(self) -> None:
        while not self._stopping.wait(POLL_INTERVAL_S):
            with self._lock:
                watched = list(self._watched.items())
            for channel, on_cancel in watched:
                if self._has_gone(channel):
                    self.forget(channel)
                    on_cancel()

    def _has_gone(self, channel: Cancellable) -> bool:
        try:
            return channel.is_cancelled()
        except Exception as error:  # noqa: BLE001 - the server's interface names no exceptions
            self._on_error(error)
            self.forget(channel)
            return False
