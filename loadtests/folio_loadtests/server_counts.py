"""The server's own counts, read from its metrics port. Knows the exposition format and which metrics matter."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from folio_loadtests.errors import RunError

HEARTBEAT = "folio_engine_heartbeat_timestamp_seconds"
FIRST_TEXT = "folio_time_to_first_token_seconds"
TIMEOUT_S = 5.0
SETTLE_TIMEOUT_S = 10.0
PAUSE_S = 0.2


@dataclass(frozen=True)
class ServerCounts:
    """One model's metrics at a moment.

    Attributes:
        values: a series' name, for histograms with `_sum`, `_count` or `_bucket` and `le`, to its value. Series of
            other labels are summed.
    """

    values: Mapping[str, float]

    def since(self, earlier: ServerCounts) -> ServerCounts:
        """What was added since."""
        return ServerCounts({name: value - earlier.values.get(name, 0.0) for name, value in self.values.items()})

    def count(self, name: str) -> int:
        """A counter's value; 0 where there is none."""
        return round(self.values.get(name, 0.0))

    @property
    def mean_first_token_s(self) -> float | None:
        """The server's mean time to the first token; None where there was none."""
        num = self.count(f"{FIRST_TEXT}_count")
        return self.values[f"{FIRST_TEXT}_sum"] / num if num else None

    @property
    def p95_first_token_bound_s(self) -> float | None:
        """The upper bound of the bucket that holds the 95th percentile; None where nothing was counted."""
        prefix = f"{FIRST_TEXT}_bucket "
        buckets = sorted((float(name.removeprefix(prefix)), n) for name, n in self.values.items() if prefix in name)
        rank = 0.95 * self.count(f"{FIRST_TEXT}_count")
        return next((bound for bound, num in buckets if rank and num >= rank), None)


class MetricsPage:
    """A server's metrics port.

    Args:
        address: `host:port`.
        model: the model whose metrics are read.
    """

    def __init__(self, address: str, model: str) -> None:
        self._url = f"http://{address}/metrics"
        self._model = model

    def read(self) -> ServerCounts:
        """The counts as they stand.

        Raises:
            RunError: there is no such page.
        """
        try:
            # The page is never encrypted; reading certificates each time would hold the generator up.
            page = httpx2.get(self._url, timeout=TIMEOUT_S, verify=False).raise_for_status().text
        except httpx2.HTTPError as error:
            text = f"{self._url} cannot be read ({type(error).__name__}): name the metrics port, or --metrics none."
            raise RunError(text) from error
        return read_page(page, self._model)

    def settled(self) -> ServerCounts:
        """The counts once all up to now are among them, or after some seconds as they are then.

        A heartbeat later than now is written together with all that came before it. Seeing one, its writing may be
        under way; seeing the next, it is done.
        """
        end_s, heard = time.monotonic() + SETTLE_TIMEOUT_S, [time.time()]
        counts = self.read()
        while len(heard) < 3 and time.monotonic() < end_s:
            heartbeat = counts.values.get(HEARTBEAT, 0.0)
            if heartbeat > heard[-1]:
                heard.append(heartbeat)
            time.sleep(PAUSE_S)
            counts = self.read()
        return counts


def read_page(page: str, model: str) -> ServerCounts:
    """One model's series on a page in Prometheus' format."""
    values: dict[str, float] = {}
    for sample in (sample for family in text_string_to_metric_families(page) for sample in family.samples):
        if sample.labels.get("model") == model and sample.name.startswith(("folio_", "kv_cache_")):
            bucket = f" {sample.labels['le']}" if "le" in sample.labels else ""
            name = sample.name + bucket
            values[name] = values.get(name, 0.0) + sample.value
    return ServerCounts(values)
