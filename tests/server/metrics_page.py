"""A server's metrics port, as Prometheus reads it.

Knows the exposition format and when a value is up to date; not what the metrics mean.
"""

from __future__ import annotations

import http.client
import time
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from tests.server.generate_client import wait_until
from tests.server.grpc_stream import MODEL

if TYPE_CHECKING:
    from prometheus_client import Metric

HEARTBEAT = "folio_engine_heartbeat_timestamp_seconds{}"


class MetricsPage:
    """The metrics port of one server.

    Args:
        address: `host:port`.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def text(self) -> str:
        """The page as it stands."""
        connection = http.client.HTTPConnection(self._address, timeout=30)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def families(self) -> list[Metric]:
        """Everything on the page; raises ValueError where it is not in Prometheus' format."""
        return list(text_string_to_metric_families(self.text()))

    def values(self) -> dict[str, float]:
        """The generate model's series, as `name{label=value}` without model and version, to their values."""
        values = {}
        for sample in (sample for family in self.families() for sample in family.samples):
            labels = dict(sample.labels)
            if labels.pop("model", None) == MODEL and labels.pop("version", None) == "1":
                shown = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
                values[f"{sample.name}{{{shown}}}"] = sample.value
        return values

    def settled(self) -> dict[str, float]:
        """The values once everything up to now is on the page.

        A heartbeat later than now is written together with all that came before it. Seeing one, its writing may be
        under way; seeing the next, it is done.
        """
        heard = [time.time()]

        def has_new_heartbeat() -> bool:
            heartbeat = self.values()[HEARTBEAT]
            heard.extend([heartbeat] * (heartbeat > heard[-1]))
            return len(heard) == 3

        wait_until(has_new_heartbeat)
        return self.values()
