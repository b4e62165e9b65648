"""Small servers of a test's own, which answer as no real one would."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socketserver
    from collections.abc import Iterator


class Quiet:
    """For handlers of HTTP, before their other base: without a word on standard error."""

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[int]:
    """Answers connections on a thread of its own; yields the port."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
