"""A request's way back to its client.

Knows the order of responses and their end, and when the client's leaving matters no more. Does not know the server's
types: it is handed a `Sender`.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from folio_backend.response_tensors import response_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from folio_backend.cancel_watch import CancelWatch
    from folio_backend.errors import FolioError
    from folio_backend.outbox import Outbox
    from folio_backend.request import OutputOptions
    from folio_backend.request_timings import RequestTimings
    from folio_backend.responses import GenerateResponse
    from folio_backend.server_request import Tensors


class Sender(Protocol):
    """The server's own way to answer one request; each call blocks a fraction of a millisecond."""

    def send(self, outputs: Tensors, *, is_final: bool) -> None:
        """Sends a response."""

    def fail(self, error: FolioError) -> None:
        """Sends an error, which is final."""

    def is_cancelled(self) -> bool:
        """Whether the client no longer wants an answer."""


class Channel:
    """Where a generation's responses go.

    Args:
        sender: what they are sent by.
        wanted: which outputs the request wants.
        outbox: the thread that sends.
        watch: the thread that notices clients that have gone.
        on_end: called on the outbox's thread, behind the last answer, with how the request went.
    """

    def __init__(
        self,
        sender: Sender,
        wanted: OutputOptions,
        outbox: Outbox,
        watch: CancelWatch,
        on_end: Callable[[RequestTimings], None],
    ) -> None:
        self._sender = sender
        self._wanted = wanted
        self._outbox = outbox
        self._watch = watch
        self._on_end = on_end
        self._lock = threading.Lock()
        self._is_ended = False

    def send(self, response: GenerateResponse) -> None:
        """Sends a response in its turn."""
        if response.is_final:
            self._forget()
        self._outbox.put(lambda: self._send_now(response))

    def fail(self, error: FolioError) -> None:
        """Sends an error in its turn."""
        self._forget()
        self._outbox.put(lambda: self._sender.fail(error))

    def end(self, timings: RequestTimings) -> None:
        """Tells how the request went once its last answer has left."""
        told_s = time.monotonic()
        self._outbox.put(lambda: self._on_end(timings.sent_later(time.monotonic() - told_s)))

    def watch(self, on_cancel: Callable[[], None]) -> None:
        """Has the client's leaving noticed, unless everything is said already."""
        with self._lock:
            if not self._is_ended:
                self._watch.watch(self, on_cancel)

    def is_cancelled(self) -> bool:
        """Whether the client has gone before the end."""
        with self._lock:
            return not self._is_ended and self._sender.is_cancelled()

    def _forget(self) -> None:
        with self._lock:
            self._is_ended = True
            self._watch.forget(self)

    def _send_now(self, response: GenerateResponse) -> None:
        self._sender.send(response_tensors(response, self._wanted), is_final=response.is_final)
