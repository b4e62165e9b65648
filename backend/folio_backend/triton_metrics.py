"""Publishes metrics through the server, on its own metrics port.

Knows the metrics interface of the server's Python backend, as measured on server 2.51 (24.10):

- Counters, gauges and histograms work; a write takes about 15 microseconds, `set` holds the GIL meanwhile.
- A call that the server refuses (a name, label or bucket it does not like, a kind that changes, a negative
  increment) raises here but can also end the whole server, so definitions are checked before they come.
- Series outlive an unloaded model and go on from their values when it is loaded again: a family or metric
  that is there already is found, not made anew.

Does not import that interface: whoever runs inside the server passes it in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from folio_backend.errors import ConfigurationError
from folio_backend.metric_definitions import MetricKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from folio_backend.metric_definitions import MetricDefinition
    from folio_backend.metrics_publisher import CounterInstrument, GaugeInstrument, HistogramInstrument


class TritonMetricSink:
    """A `MetricSink` over the server's `MetricFamily`.

    Args:
        server_interface: the module `triton_python_backend_utils`, or what looks like it.

    Raises:
        ConfigurationError: the server is too old for histograms.
    """

    def __init__(self, server_interface: Any) -> None:
        self._family_type = server_interface.MetricFamily
        for kind in MetricKind:
            if not hasattr(self._family_type, kind.value):
                raise ConfigurationError(
                    f"The server's Python backend has no {kind.value} metrics; needed: Triton 24.10."
                )
        # The server deletes a family's metrics with the family, so families are kept as long as the sink.
        self._families: dict[str, Any] = {}

    def counter(self, definition: MetricDefinition, labels: Mapping[str, str]) -> CounterInstrument:
        """Publishes a counter."""
        counter: CounterInstrument = self._family(definition).Metric(labels=dict(labels))
        return counter

    def gauge(self, definition: MetricDefinition, labels: Mapping[str, str]) -> GaugeInstrument:
        """Publishes a gauge."""
        gauge: GaugeInstrument = self._family(definition).Metric(labels=dict(labels))
        return gauge

    def histogram(self, definition: MetricDefinition, labels: Mapping[str, str]) -> HistogramInstrument:
        """Publishes a histogram."""
        family = self._family(definition)
        histogram: HistogramInstrument = family.Metric(labels=dict(labels), buckets=list(definition.buckets))
        return histogram

    def _family(self, definition: MetricDefinition) -> Any:
        if definition.name not in self._families:
            self._families[definition.name] = self._family_type(
                name=definition.name,
                description=definition.help,
                kind=getattr(self._family_type, definition.kind.value),
            )
        return self._families[definition.name]
