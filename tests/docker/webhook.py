"""A receiver of Alertmanager's notifications."""

from __future__ import annotations

import json
from typing import Any

from tests.server.http_receiver import HttpReceiver


class Webhook(HttpReceiver):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self._notifications: list[tuple[str, dict[str, Any]]] = []

    def alerts(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        """The path that an alert came to, and the alert, as often as it came."""
        notifications = list(self._notifications)
        told = [(path, alert) for path, notification in notifications for alert in notification["alerts"]]
        return [(path, alert) for path, alert in told if alert["labels"]["alertname"] == name]

    def take(self, path: str, content_type: str, body: bytes) -> None:
        """See `HttpReceiver.take`."""
        del content_type
        self._notifications.append((path, json.loads(body)))
