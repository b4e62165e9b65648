"""Sends responses on a thread of its own, in the order they were given.

Knows that a request gets exactly one final response, whatever fails on the way. Does not know the server's types: it
is handed callables.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Sending = Callable[[], None]


class Outbox:
    """A queue of things to send and the thread that sends them.

    Args:
        on_error: told of what a sending raised; the thread goes on.
    """

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        self._queue: queue.SimpleQueue[Sending | None] = queue.SimpleQueue()
        self._on_error = on_error
        self._thread = threading.Thread(target=self._run, name="folio-outbox", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def put(self, sending: Sending) -> None:
        """Queues a sending; returns at once."""
        self._queue.put(sending)

    def stop(self) -> None:
        """Sends what is queued, then ends the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (sending := self._queue.get()) is not None:
            try:
                sending()
            except Exception as error:  # noqa: BLE001 - a client that is gone must not stop the others' responses
                self._on_error(error)
