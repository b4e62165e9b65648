"""Writes what was measured to where it is published, about twice a second, on a thread of its own.

Knows which series changed since they were last written. Does not know what publishes them: a `MetricSink`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from folio_backend.metric_definitions import METRICS, MetricDefinition, MetricKind, is_label_name
from folio_backend.metrics import known_series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from folio_backend.metrics import MetricsRecorder, Series


class CounterInstrument(Protocol):
    """A published counter."""

    def increment(self, value: float, /) -> None:
        """Adds `value`, which is not negative."""


class GaugeInstrument(Protocol):
    """A published gauge."""

    def set(self, value: float, /) -> None:
        """Replaces the value."""


class HistogramInstrument(Protocol):
    """A published histogram."""

    def observe(self, value: float, /) -> None:
        """Counts one observation."""


class MetricSink(Protocol):
    """Where metrics are published. Each method is called once for each set of labels."""

    def counter(self, definition: MetricDefinition, labels: Mapping[str, str]) -> CounterInstrument:
        """Publishes a counter, at 0."""

    def gauge(self, definition: MetricDefinition, labels: Mapping[str, str]) -> GaugeInstrument:
        """Publishes a gauge, at 0."""

    def histogram(self, definition: MetricDefinition, labels: Mapping[str, str]) -> HistogramInstrument:
        """Publishes a histogram, without observations."""


class _SeriesWriter(Protocol):
    def write(self, value: float) -> None: ...


class _CounterWriter:
    def __init__(self, instrument: CounterInstrument) -> None:
        self._instrument = instrument
        self._written = 0.0

    def write(self, total: float) -> None:
        assert total >= self._written, "a total fell"
        if total > self._written:
            self._instrument.increment(total - self._written)
            self._written = total


class _GaugeWriter:
    def __init__(self, instrument: GaugeInstrument) -> None:
        self._instrument = instrument
        self._written: float | None = None

    def write(self, level: float) -> None:
        if level != self._written:
            self._instrument.set(level)
            self._written = level


class _HistogramWriter:
    def __init__(self, instrument: HistogramInstrument) -> None:
        self._instrument = instrument

    def write(self, observation: float) -> None:
        self._instrument.observe(observation)


class MetricsPublisher:
    """Publishes every metric of `METRICS` under the given labels.

    Every series that is known beforehand is created here, in the caller's thread, and what the sink raises
    goes to the caller. Later a series that raises is reported once and not written again: the server can be
    ended by calls that it refuses, so there is no second try.

    Args:
        recorder: where values come from; this is its one reader.
        sink: where they go.
        labels: the labels that every series carries: model, version, and what else tells publishers apart:
            gauges of two publishers with equal labels would overwrite each other.
        on_error: told of what the sink raised while the publisher ran.
        interval_s: seconds between two writes.
        aliases: metric to a second definition that it is published as too.
    """

    def __init__(
        self,
        recorder: MetricsRecorder,
        sink: MetricSink,
        labels: Mapping[str, str],
        *,
        on_error: Callable[[Exception], None],
        interval_s: float = 0.5,
        aliases: Mapping[MetricDefinition, MetricDefinition] | None = None,
    ) -> None:
        assert all(is_label_name(name) for name in labels)
        self._recorder = recorder
        self._sink = sink
        self._labels = dict(labels)
        self._on_error = on_error
        self._interval_s = interval_s
        self._aliases = dict(aliases or {})
        self._flush_lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="folio-metrics", daemon=True)
        self._writers: dict[Series, list[_SeriesWriter]] = {
            series: self._create_writers(series) for definition in METRICS for series in known_series(definition)
        }

    def start(self) -> None:
        """Starts to write at the interval; once."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and writes once more; what is recorded later is not written. May be repeated."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def flush(self) -> None:
        """Writes now what changed since the last time; from any thread.

        Levels come last, and among them the engine's heartbeat: whoever sees one sees all that was counted before it.
        """
        with self._flush_lock:
            readings = self._recorder.drain()
            self._write_all(readings.totals.items())
            self._write_all(readings.observations)
            self._write_all(readings.levels.items())

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self.flush()

    def _write_all(self, values: Iterable[tuple[Series, float]]) -> None:
        for series, value in values:
            for writer in tuple(self._writers_of(series)):
                self._write(series, writer, value)

    def _writers_of(self, series: Series) -> list[_SeriesWriter]:
        if series not in self._writers:
            self._writers[series] = []
            try:
                self._writers[series] = self._create_writers(series)
            except Exception as error:  # noqa: BLE001 - whatever the sink raises is reported
                self._on_error(error)
        return self._writers[series]

    def _write(self, series: Series, writer: _SeriesWriter, value: float) -> None:
        try:
            writer.write(value)
        except Exception as error:  # noqa: BLE001 - whatever the sink raises is reported
            self._writers[series].remove(writer)
            self._on_error(error)

    def _create_writers(self, series: Series) -> list[_SeriesWriter]:
        alias = self._aliases.get(series.definition)
        definitions = (series.definition,) if alias is None else (series.definition, alias)
        labels = self._labels | series.labels()
        return [self._create_writer(definition, labels) for definition in definitions]

    def _create_writer(self, definition: MetricDefinition, labels: Mapping[str, str]) -> _SeriesWriter:
        if definition.kind is MetricKind.COUNTER:
            return _CounterWriter(self._sink.counter(definition, labels))
        if definition.kind is MetricKind.GAUGE:
            return _GaugeWriter(self._sink.gauge(definition, labels))
        return _HistogramWriter(self._sink.histogram(definition, labels))
