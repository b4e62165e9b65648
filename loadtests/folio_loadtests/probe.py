"""The admin probe: an operator's dashboard, asking how the server is."""

from __future__ import annotations

from folio_client import Client
from folio_loadtests.asking import Asker


class Probe:
    """One look at health and stats."""

    def __init__(self, asker: Asker, client: Client) -> None:
        self._asker, self._client = asker, client

    def ask(self, intended_s: float) -> bool:
        """See `Activity`. A model that calls itself unhealthy is a failure."""
        with self._asker.asking("probe", intended_s) as ask:
            if not self._client.admin.health().is_healthy:
                ask.fail("unhealthy by its own account")
            self._client.admin.stats()
        return False

    def close(self) -> None:
        """See `Activity`."""
