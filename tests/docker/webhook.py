"""A receiver of Alertmanager's notifications."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class Webhook:
    """Listens on a free port inside a `with` block and keeps what it is told.

    Attributes:
        address: `host:port`.
    """

    def __init__(self) -> None:
        self._notifications: list[tuple[str, dict[str, Any]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def alerts(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        """The path that an alert came to, and the alert, as often as it came."""
        notifications = list(self._notifications)
        told = [(path, alert) for path, notification in notifications for alert in notification["alerts"]]
        return [(path, alert) for path, alert in told if alert["labels"]["alertname"] == name]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        notifications = self._notifications

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                notifications.append((self.path, json.loads(content)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Says nothing: the test looks at what came."""

        return Handler
